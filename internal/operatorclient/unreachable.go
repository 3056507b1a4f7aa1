package operatorclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"strings"

	"github.com/powernode/powernode-agent/internal/fault"
)

// unreachable returns the fault that says why no answer came from the platform at base, with
// what to do about it: nothing listening, a CA or a host name that doesn't fit, an expired
// certificate, no answer in time.
func unreachable(base string, err error) error {
	if verify, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		err = verify.Err
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return fault.New(fault.Refuse, fault.Platform, "copy operator.json from the data directory of the platform that you mean",
			"the certificate at %s isn't from the CA in the credential file: it is another platform, or its CA was made anew", base)
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return fault.New(fault.Refuse, fault.Platform, "start powernode-platform with --public-url or --tls-name naming that host",
			"the certificate at %s is for another name: %w", base, err)
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return fault.New(fault.Refuse, fault.Platform, "compare the clocks of both machines",
			"the certificate at %s is outside its validity: %w", base, err)
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return fault.New(fault.Retry, fault.Platform, "see whether powernode-platform is overloaded or the network drops packets",
			"no answer from the platform at %s in time", base)
	}
	if strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		return fault.New(fault.Refuse, fault.Platform, "check the url in the credential file", "what answers at %s doesn't speak HTTPS", base)
	}
	return fault.New(fault.Retry, fault.Platform, "check that powernode-platform runs and that this host can reach it",
		"reach the platform at %s: %w", base, err)
}
