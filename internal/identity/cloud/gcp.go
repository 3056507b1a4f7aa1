package cloud

import (
	"errors"
	"net/http"
)

// gcp is Google Compute Engine (Google, Compute Engine, "View and query VM metadata"). The
// user-data is the custom metadata entry of the instance, or of its project, called user-data.
// A request without Metadata-Flavor: Google is refused by the service, and an answer without it
// isn't the service's.
func gcp() provider {
	return provider{
		name: GCP, title: "Google Compute Engine",
		is:       isGCP,
		header:   http.Header{"Metadata-Flavor": {"Google"}},
		userData: "/computeMetadata/v1/instance/attributes/user-data",
		probe:    "/computeMetadata/v1/instance/id",
		genuine: func(h http.Header) error {
			if h.Get("Metadata-Flavor") != "Google" {
				return errors.New("the answer lacks Metadata-Flavor: Google and isn't the metadata service's")
			}
			return nil
		},
	}
}

// isGCP goes by the product and not by the vendor: Google makes laptops too.
func isGCP(m Machine) bool {
	return m.ProductName == "Google Compute Engine" || m.ProductName == "Google"
}
