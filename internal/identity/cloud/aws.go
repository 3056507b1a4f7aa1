package cloud

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/powernode/powernode-agent/internal/fault"
)

// aws is Amazon EC2, by version 2 of its Instance Metadata Service only (AWS, EC2 User Guide, "Use
// the Instance Metadata Service to access instance metadata"): a token is got by a PUT, which a
// server tricked into fetching a URL can't send, and is good for the requests that follow. There is
// no falling back to version 1, which asks for no token.
//
// The answer to the PUT has an IP time-to-live of the instance's HttpPutResponseHopLimit, by
// default 1: it doesn't get any further than to the machine itself, and an agent in a container
// with a network of its own waits in vain.
func aws() provider {
	return provider{
		name: AWS, title: "Amazon EC2",
		is:       isAWS,
		session:  awsSession,
		userData: "/latest/user-data",
		probe:    "/latest/meta-data/instance-id",
	}
}

var awsInstanceID = regexp.MustCompile(`^i-([0-9a-f]{8}|[0-9a-f]{17})$`)

// isAWS knows the Nitro machines and those of bare metal by their vendor or by the instance's ID as
// the board's asset tag, and the older Xen guests by the hypervisor's UUID or the version of the
// firmware, "4.11.amazon" (AWS, EC2 User Guide, "Detect whether a host is an EC2 instance"). The
// guide's other way, a system UUID that begins with ec2, is by its own words inaccurate.
func isAWS(m Machine) bool {
	return m.SysVendor == "Amazon EC2" || m.BIOSVendor == "Amazon EC2" || awsInstanceID.MatchString(m.BoardAssetTag) ||
		strings.HasPrefix(strings.ToLower(m.HypervisorUUID), "ec2") ||
		m.SysVendor == "Xen" && strings.HasSuffix(m.ProductVersion, ".amazon")
}

const (
	awsTokenPath = "/latest/api/token"
	// awsMaxToken is well above the 56 characters that tokens have.
	awsMaxToken = 1 << 10
)

func awsSession(ctx context.Context, c client) (http.Header, error) {
	a, err := c.do(ctx, http.MethodPut, awsTokenPath, http.Header{"X-Aws-Ec2-Metadata-Token-Ttl-Seconds": {"60"}})
	if err != nil {
		if passing, ok := errors.AsType[passingError](err); ok {
			passing.hint = "where the agent runs in a container or behind another hop, raise the instance's HttpPutResponseHopLimit"
			return nil, passing
		}
		return nil, err
	}
	if a.status == http.StatusNotFound {
		return nil, passingError{
			err:  fmt.Errorf("%s %s%s: %w", http.MethodPut, address, awsTokenPath, a.asError()),
			hint: "switch version 2 of the metadata service on for this instance; version 1 isn't used",
		}
	}
	token := strings.TrimSpace(string(a.body))
	if !isHeaderValue(token) {
		return nil, fault.New(fault.Refuse, fault.Platform, "see who answers at that address on this machine's network",
			"%s %s%s: the answer isn't a session token", http.MethodPut, address, awsTokenPath)
	}
	return http.Header{"X-Aws-Ec2-Metadata-Token": {token}}, nil
}

// isHeaderValue reports whether s can be a token: not empty, and nothing but printing ASCII.
func isHeaderValue(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return s != "" && len(s) <= awsMaxToken
}
