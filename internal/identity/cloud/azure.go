package cloud

import (
	"encoding/base64"
	"net/http"
	"strings"

	"github.com/powernode/powernode-agent/internal/fault"
)

// azure is Microsoft Azure (Microsoft, Azure Virtual Machines, "Azure Instance Metadata Service" and
// "User data"). It is the machine's *user data*, which the service gives in base64. The older
// *custom data* is not to be had from this service: it lies on a medium that the machine sees when it
// is made, and this agent doesn't read it.
func azure() provider {
	const version = "?api-version=2021-01-01&format=text"
	return provider{
		name: Azure, title: "Microsoft Azure",
		is:       isAzure,
		header:   http.Header{"Metadata": {"true"}},
		userData: "/metadata/instance/compute/userData" + version,
		probe:    "/metadata/instance/compute/vmId" + version,
		decode: func(body []byte) ([]byte, error) {
			data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(body)), ""))
			if err != nil {
				return nil, fault.New(fault.Refuse, fault.Platform, "see who answers at that address on this machine's network",
					"get the user-data of Microsoft Azure: the answer isn't in base64")
			}
			return data, nil
		},
	}
}

// isAzure goes by the asset tag, "MSFT AZURE VM" in the numbers of its letters: the vendor and the
// product are those of any Hyper-V.
func isAzure(m Machine) bool {
	return m.ChassisAssetTag == "7783-7084-3265-9085-8269-3286-77"
}
