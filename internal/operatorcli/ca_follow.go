package operatorcli

import (
	"encoding/json"
	"fmt"
	"path/filepath"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/operatorclient"
)

// learnedCA keeps the platform's new CA bundle in the credential file. What goes wrong is a warning: the
// command itself was done, and the CA that the file holds is good for a while yet.
func (c *connection) learnedCA(used operatorclient.Config, caPEM string, err error) {
	path := c.configPath()
	changed := false
	if err == nil {
		changed, err = keepCA(path, used, caPEM)
	}
	switch {
	case err != nil:
		fmt.Fprintf(c.app.Err, "warning: the platform's CA has changed, and %s couldn't be brought up to date: %v\n", path, err)
	case changed:
		fmt.Fprintf(c.app.Err, "the platform's CA has changed: %s is up to date\n", path)
	}
}

// keepCA replaces the CA in the credential file at path, if that still holds what was used, and reports
// whether it wrote the file.
func keepCA(path string, used operatorclient.Config, caPEM string) (bool, error) {
	// The file is replaced by a rename, which a link would be the victim of.
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return false, err
	}
	have, err := operatorclient.LoadConfig(real)
	if err != nil {
		return false, err
	}
	// The platform brings its own copy up to date itself.
	if have.CAPEM == caPEM || have.CAPEM != used.CAPEM || have.URL != used.URL || !have.Token.Equal(used.Token) {
		return false, nil
	}
	dir, err := durable.OpenDir(filepath.Dir(real), nil)
	if err != nil {
		return false, err
	}
	defer dir.Close()
	name := filepath.Base(real)
	data, err := dir.ReadFile(name, credentialLimit)
	if err != nil {
		return false, err
	}
	// What the file holds besides stays in it.
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(data, &fields); err != nil {
		return false, err
	}
	if fields["ca_pem"], err = json.Marshal(caPEM); err != nil {
		return false, err
	}
	return true, dir.WriteJSON(name, fields, 0o600, operatorapi.CredentialName)
}

// credentialLimit bounds the credential file in bytes.
const credentialLimit = 256 << 10
