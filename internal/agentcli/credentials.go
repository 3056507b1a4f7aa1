package agentcli

import (
	"fmt"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/enroll"
)

// credentialsDoc is what there is to say of the node's credentials. It holds no secret.
type credentialsDoc struct {
	Situation enroll.Situation `json:"situation"`
	// Reason says what is wrong, and Hint what to do.
	Reason      string    `json:"reason,omitempty"`
	Hint        string    `json:"hint,omitempty"`
	InstanceID  string    `json:"instance_id,omitempty"`
	PlatformURL string    `json:"platform_url,omitempty"`
	Serial      string    `json:"serial,omitempty"`
	NotBefore   time.Time `json:"not_before,omitzero"`
	NotAfter    time.Time `json:"not_after,omitzero"`
	// RotateAt is when the service replaces the certificate.
	RotateAt time.Time `json:"rotate_at,omitzero"`
	// Unused says that the platform hasn't taken the certificate yet.
	Unused bool `json:"unused,omitempty"`
	// Key is where the private key lives.
	Key enroll.KeyKind `json:"key,omitempty"`
	// CASHA256 is the SHA-256 of the CA bundle that the node trusts.
	CASHA256 string `json:"ca_bundle_sha256,omitempty"`
	// Clock is whose time certificates are judged by.
	Clock string `json:"clock,omitempty"`
	// Proxy is the proxy to the platform, without its password.
	Proxy string `json:"proxy,omitempty"`
}

// readCredentials reads the credentials below a directory of record.
func readCredentials(stateDir string) (*credentialsDoc, error) {
	state, err := enroll.Inspect(boot.PKIDir(stateDir), enroll.Wish{}, openClock(stateDir).Now())
	if err != nil {
		return nil, err
	}
	s := state.Status()
	doc := &credentialsDoc{
		Situation: s.Situation, Reason: s.Reason, Hint: s.Hint, Serial: s.Serial, NotBefore: s.NotBefore, NotAfter: s.NotAfter,
		RotateAt: s.RotateAt, Unused: s.Unused, Key: s.Key, CASHA256: s.CABundleSHA256,
	}
	if c := state.Credentials; c != nil {
		doc.InstanceID, doc.PlatformURL, doc.Clock = c.InstanceID, c.PlatformURL, "platform"
		if c.LocalClock {
			doc.Clock = "local"
		}
		if p := c.Proxy(); p != nil {
			doc.Proxy = p.Redacted()
		}
	}
	return doc, nil
}

// rows returns the credentials for a table; all of them, or what matters every day.
func (c *credentialsDoc) rows(all bool) [][2]string {
	if c == nil {
		return nil
	}
	var rows [][2]string
	stamp := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	if all || c.Reason != "" {
		text := strings.TrimSuffix(c.Situation.String()+"; "+c.Reason, "; ")
		rows = append(rows, [2]string{"credentials", sentence(text, c.Hint)})
	}
	if c.Serial == "" {
		return rows
	}
	if !all {
		return append(rows, [2]string{"certificate", fmt.Sprintf("until %s, to be replaced at %s", stamp(c.NotAfter), stamp(c.RotateAt))})
	}
	used := ""
	if c.Unused {
		used = ", not used yet"
	}
	rows = append(rows,
		[2]string{"node", c.InstanceID},
		[2]string{"platform", c.PlatformURL},
		[2]string{"certificate", fmt.Sprintf("%s, %s to %s, to be replaced at %s%s", c.Serial, stamp(c.NotBefore), stamp(c.NotAfter), stamp(c.RotateAt), used)},
		[2]string{"key", fmt.Sprintf("in a %s", c.Key)},
		[2]string{"CA bundle", c.CASHA256},
		[2]string{"clock", c.Clock},
	)
	if c.Key == enroll.TPMKey {
		rows[len(rows)-3][1] = "in the TPM"
	}
	if c.Proxy != "" {
		rows = append(rows, [2]string{"proxy", c.Proxy})
	}
	return rows
}
