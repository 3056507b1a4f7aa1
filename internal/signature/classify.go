package signature

import (
	"regexp"
	"strings"
)

// refusals maps how the library's errors read to the check that refused and to our words. It
// decides only how a refusal is explained: an error that isn't here refuses too. The first match
// counts. A test provokes each.
var refusals = []struct {
	text  string
	check CheckName
	words string
}{
	{"integrated time outside certificate validity", CheckCertificate, "its certificate was not valid when the transparency log saw it"},
	{"not enough verified log entries", CheckLog, "no entry of a transparency log of the trusted root proves it"},
	{"failed to verify log inclusion", CheckLog, "its transparency log entry doesn't verify"},
	{"failed to verify timestamps", CheckTime, "no trusted time says when it was signed"},
	{"failed to verify leaf certificate", CheckCertificate, "its certificate was not issued by an authority of the trusted root, or was not valid when it was signed"},
	{"failed to verify signed certificate timestamp", CheckCT, "no certificate log of the trusted root vouches for its certificate"},
	{"outside of public key validity window", CheckKey, "its key was not valid when it was signed"},
	{"does not match any digest in statement", CheckSubject, "it is about something else"},
	{"do not match digests in statement", CheckSubject, "it is about something else"},
	{"artifact does not match digest", CheckSubject, "it is about something else"},
	{"artifact digest does not match message digest", CheckSubject, "it is about something else"},
	{"failed to verify certificate identity", CheckIdentity, "the signer is not one that is trusted"},
	{"failed to verify signature", CheckSignature, "it doesn't verify: the signature or what was signed has been changed"},
}

// causeMax is how many bytes of a cause are shown.
const causeMax = 300

// noise is what the library puts in front of a cause or leaves of a formatting slip.
var noise = regexp.MustCompile(`^(failed to [a-z ]+: |validation error: |invalid bundle: )+|(; error)?: %!w\(<nil>\)`)

// tidy returns a cause's text on one line, without the words that ours already say.
func tidy(cause error) string {
	text := noise.ReplaceAllString(strings.Join(strings.Fields(cause.Error()), " "), "")
	if len(text) > causeMax {
		text = strings.ToValidUTF8(text[:causeMax], "") + "..."
	}
	return text
}

// classify finds the check that an error of the library is about.
func classify(err error) *Failure {
	text := err.Error()
	for _, r := range refusals {
		if strings.Contains(text, r.text) {
			return fail(r.check, err, "%s", r.words)
		}
	}
	return fail(CheckBundle, err, "it can't be verified")
}
