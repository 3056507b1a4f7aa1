package bootconfig

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/fault"
)

func TestLoad(t *testing.T) {
	with := func(change func(*Config)) Config {
		c := Default()
		change(&c)
		return c
	}
	for _, c := range []struct {
		name, file, line string
		want             Config
	}{
		{"nothing", "", "ro quiet root=/dev/sda1", Default()},
		{
			"every setting of the command line", "schema_version: 1\nupper: persist\netc: persistent\n",
			`powernode.persist="PARTLABEL=a b" powernode.persist-prepare=empty powernode.persist_timeout=90 powernode.network=off powernode.network_timeout=10s ` +
				"powernode.upper=persist powernode.upper_size=25% powernode.etc=persistent powernode.integrity=enforced powernode.break=mount " +
				"powernode.tries=5 powernode.health_timeout=2m powernode.platform=optional powernode.generation=7 powernode.identity=aws,boot,aws",
			Config{
				Persist: "PARTLABEL=a b", PersistPrepare: Empty, PersistTimeout: 90 * time.Second, Network: Off, NetworkTimeout: 10 * time.Second,
				Upper: OnPersist, UpperSize: "25%", Etc: Persistent, Integrity: Enforced, Break: "mount",
				Tries: 5, HealthTimeout: 2 * time.Minute, Platform: Optional, Generation: 7, Identity: []string{"aws", "boot"},
			},
		},
		{"a root in memory is for both to ask for", "schema_version: 1\nupper: persist\netc: persistent\n", "powernode.upper=tmpfs powernode.etc=ephemeral", Default()},
		{"the file", "schema_version: 1\ntries: 7\npersist: memory\nintegrity: checked\n", "", with(func(c *Config) { c.Tries, c.Persist, c.Integrity = 7, Memory, Checked })},
		{"the command line wins", "schema_version: 1\ntries: 7\nupper: persist\n", "powernode.tries=1", with(func(c *Config) { c.Tries, c.Upper = 1, OnPersist })},
		{"the last wins", "", "powernode.tries=1 powernode.tries=2", with(func(c *Config) { c.Tries = 2 })},
		{"integrity is raised", "schema_version: 1\nintegrity: checked\n", "powernode.integrity=enforced", with(func(c *Config) { c.Integrity = Enforced })},
		{"identity's are others'", "", "powernode.instance_uuid=x powernode.bootstrap_token=y powernode.ca_pem='a b' powernode.ca_file=/x powernode.platform-url=z powernode.ca-url=u powernode.ca_sha256=v powernode.ca=w powernode.proxy=p powernode.clock=local", Default()},
		{"a file without settings", "schema_version: 1\n", "", Default()},
	} {
		t.Run(c.name, func(t *testing.T) {
			var file []byte
			if c.file != "" {
				file = []byte(c.file)
			}
			got, remarks, err := Load(file, c.line)
			if err != nil || len(remarks) != 0 {
				t.Fatalf("remarks %v, error %v", remarks, err)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestHarmless: what a mistake on the command line leaves is the default, and a remark.
func TestHarmless(t *testing.T) {
	for line, word := range map[string]string{
		"powernode.tries=0":                    "from 1 to 100",
		"powernode.tries=x":                    "from 1 to 100",
		"powernode.tries":                      "from 1 to 100",
		"powernode.generation=0":               "number from 1",
		"powernode.upper_size=0":               "size like",
		"powernode.upper_size=512m,mode=777":   "size like",
		"powernode.upper_size=101%":            "size like",
		"powernode.network=maybe":              "auto or off",
		"powernode.network_timeout=2h":         "from 1s to 1h0m0s",
		"powernode.health_timeout=-5m":         "from 10s",
		"powernode.persist=sda1":               "name of a device",
		"powernode.persist=LABEL=":             "name of a device",
		"powernode.persist_prepare=yes":        "no or empty",
		"powernode.break=Mount;sh":             "name of a stage",
		"powernode.etc=readonly":               "ephemeral or persistent",
		`powernode.tries="7`:                   "isn't closed",
		"powernode.integrty=enforced":          "doesn't know",
		"powernode.\x1b[2Jx=1":                 "doesn't know",
		"powernode.platform=sometimes":         "required or optional",
		"powernode.upper=ramfs":                "tmpfs or persist",
		"powernode.upper=persist":              "doesn't count",
		"powernode.etc=persistent":             "doesn't count",
		"powernode.persist_timeout=1000000h":   "time like",
		"powernode.generation=-1":              "number from 1",
		"powernode.tries=99999999999999999999": "from 1 to 100",
	} {
		c, remarks, err := Load(nil, line)
		if err != nil || len(remarks) != 1 || !strings.Contains(remarks[0].Text, word) || remarks[0].Hint == "" || strings.Contains(remarks[0].Hint, word) {
			t.Errorf("%q: remarks %q, error %v", line, remarks, err)
		}
		if d := cmp.Diff(Default(), c); d != "" {
			t.Errorf("%q: %s", line, d)
		}
	}
}

// TestIdentityIsNotWidened: a mistake in what leaves sources out doesn't let all of them in.
func TestIdentityIsNotWidened(t *testing.T) {
	for line, want := range map[string]string{
		"powernode.identity=aws,moon":            "aws",
		"powernode.identity=cmdlin":              "",
		"powernode.identity=":                    "",
		"powernode.identity":                     "",
		`powernode.identity="boot`:               "boot",
		"powernode.identity=moon, powernode.x=1": "",
		"powernode.identity=boot,,claim,boot":    "boot claim",
	} {
		c, remarks, err := Load([]byte("schema_version: 1\nidentity: aws,gcp\n"), line)
		if err != nil || len(remarks) == 0 || remarks[0].Hint == "" || !strings.Contains(remarks[0].Text, "only the sources that are known") {
			t.Errorf("%q: remarks %q, error %v", line, remarks, err)
		}
		if c.Identity == nil || strings.Join(c.Identity, " ") != want {
			t.Errorf("%q: %q", line, c.Identity)
		}
	}
}

func TestIntegrityIsNotLowered(t *testing.T) {
	c, remarks, err := Load([]byte("schema_version: 1\nintegrity: enforced\n"), "powernode.integrity=checked")
	if err != nil || c.Integrity != Enforced || len(remarks) != 1 {
		t.Errorf("%+v, %v, %v", c, remarks, err)
	}
	for _, line := range []string{"powernode.integrity=enforcd", "powernode.integrity=", "powernode.integrity", `powernode.integrity="enforced`} {
		if _, _, err := Load(nil, line); fault.KindOf(err) != fault.Refuse || fault.HintOf(err) == "" {
			t.Errorf("%q: %v", line, err)
		}
	}
	if _, _, err := Load(nil, strings.Repeat("x", CmdlineMax+1)); err == nil {
		t.Error("a command line without end is read")
	}
}

// TestFileIsStrict: it is built into the initramfs, where a mistake is found at the first boot.
func TestFileIsStrict(t *testing.T) {
	for file, word := range map[string]string{
		"":                              "no schema_version",
		"# nothing\n":                   "no schema_version",
		"tries: 3\n":                    "no schema_version",
		"schema_version: 2\n":           "reads 1",
		"schema_version: 1\ntrys: 3\n":  "line 2: trys: this agent doesn't know it",
		"schema_version: 1\ntries: 0\n": "from 1 to 100",
		"schema_version: 1\ntries: 3\ntries: 4\n":     "twice",
		"schema_version: 1\ntries: [3]\n":             "one value",
		"schema_version: 1\ntries: &a 3\n":            "one value",
		"schema_version: 1\n---\nschema_version: 1\n": "more than one document",
		"- a\n":                               "list of settings",
		"schema_version: 1\n<<: {tries: 3}\n": "one value",
		"\t":                                  "",
		"schema_version: 1\nx: " + strings.Repeat("y", FileMax): "larger",
	} {
		_, _, err := Load([]byte(file), "")
		if fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), word) || !strings.Contains(err.Error(), Path) {
			t.Errorf("%.40q: %v", file, err)
		}
	}
}

func TestKeysHaveForms(t *testing.T) {
	for _, name := range Keys() {
		if keys[name].form == "" || keys[name].set == nil {
			t.Errorf("%s has no form", name)
		}
	}
}

func TestValues(t *testing.T) {
	p := Split("ip=dhcp ip=a:b x ip")
	if d := cmp.Diff([]string{"dhcp", "a:b", ""}, Values(p, "ip")); d != "" {
		t.Error(d)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("schema_version: 1\ntries: 3\n", "powernode.tries=3")
	f.Add("a: &b\n", `powernode.integrity="enforced powernode.x`)
	f.Fuzz(func(t *testing.T, file, line string) {
		for _, text := range [][]byte{nil, []byte(file)} {
			c, _, err := Load(text, line)
			if err != nil {
				continue
			}
			if c.Tries < 1 || c.Tries > triesMax || c.PersistTimeout <= 0 || c.HealthTimeout < healthMin || (c.UpperSize != "" && !sizeForm.MatchString(c.UpperSize)) {
				t.Fatalf("%q, %q: %+v", text, line, c)
			}
			if c.Integrity != Enforced && strings.Contains(line, " powernode.integrity=enforced ") && len(Values(Split(line), "powernode.integrity")) == 1 {
				t.Fatalf("%q lowers the level", line)
			}
		}
	})
}
