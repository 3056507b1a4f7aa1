package userdata

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/identity"
)

const (
	instance = "0f8fad5b-d9cb-469f-a165-70867728950e"
	token    = "n0GmqvG1YVqXbU5Fqk3v3mXv1mB8b7VnV2m1gY0oT9A=="
	server   = "https://10.0.0.1:8443"
	pem      = "-----BEGIN CERTIFICATE-----\nMIIB=\n-----END CERTIFICATE-----"
	digest   = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
)

// whole says everything that user-data can.
var whole = identity.Raw{
	InstanceID: instance, Token: token, PlatformURL: server, CA: pem,
	CAURL: "https://10.0.0.1/ca.pem", CASHA256: digest, Proxy: "http://u:p@proxy:3128", Clock: "local",
}

var short = identity.Raw{InstanceID: instance, Token: token, PlatformURL: server}

const (
	shortJSON  = `{"instance_uuid": "` + instance + `", "bootstrap_token": "` + token + `", "platform_url": "` + server + `"}`
	shortPairs = "powernode.instance_uuid=" + instance + " powernode.bootstrap-token=" + token + " powernode.platform_url=" + server
	shortLines = "ID=" + instance + "\nKEY=" + token + "\nSERVER=" + server + "\n"
	shortCloud = "#cloud-config\npowernode:\n  instance_uuid: " + instance + "\n  bootstrap_token: " + token + "\n  platform_url: " + server + "\n"
)

func zip(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write([]byte(s))
	if err := errors.Join(err, z.Close()); err != nil {
		panic(err)
	}
	return b.String()
}

func code(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// wrapped is base64 as mail programs have it.
func wrapped(s string) string {
	var lines []string
	for s = code(s); len(s) > 76; s = s[76:] {
		lines = append(lines, s[:76])
	}
	return strings.Join(append(lines, s), "\r\n") + "\r\n"
}

// message is a MIME message as `cloud-init devel make-mime` writes it.
func message(parts ...string) string {
	return "Content-Type: multipart/mixed; boundary=\"===============1==\"\nMIME-Version: 1.0\nNumber-Attachments: 2\n\n--===============1==\n" +
		strings.Join(parts, "\n--===============1==\n") + "\n--===============1==--\n"
}

func part(kind, body string) string {
	return "Content-Type: " + kind + "; charset=\"us-ascii\"\nMIME-Version: 1.0\nContent-Transfer-Encoding: 7bit\nContent-Disposition: attachment; filename=\"a\"\n\n" + body
}

func coded(kind, body string) string {
	return "Content-Type: " + kind + "\nContent-Transfer-Encoding: base64\n\n" + wrapped(body)
}

func writes(entries ...string) string {
	return "#cloud-config\npackages: [nginx]\nwrite_files:\n" + strings.Join(entries, "")
}

func entry(path, encoding, content string) string {
	text := "- path: " + path + "\n  permissions: '0600'\n"
	if encoding != "" {
		text += "  encoding: " + encoding + "\n"
	}
	return text + "  content: |\n    " + strings.ReplaceAll(strings.TrimSuffix(content, "\n"), "\n", "\n    ") + "\n"
}

func TestParse(t *testing.T) {
	script := "#!/bin/sh\necho powernode.bootstrap_token=not-ours\n"
	for name, c := range map[string]struct {
		in   string
		want identity.Raw
	}{
		"JSON": {shortJSON, short},
		"JSON, all": {`{"instance_uuid":"` + instance + `","bootstrap_token":"` + token + `","platform_url":"` + server + `","ca_pem":` +
			`"-----BEGIN CERTIFICATE-----\nMIIB=\n-----END CERTIFICATE-----\n","ca_url":"https://10.0.0.1/ca.pem","ca_sha256":"` + digest +
			`","proxy":"http://u:p@proxy:3128","clock":"local","other":[1,{}],"ca_file":null}`, whole},
		"JSON inside":            {`{"ignition":{"version":"3.4.0"},"powernode":` + shortJSON + `}`, short},
		"JSON with a BOM":        {"\ufeff\r\n" + shortJSON + "\r\n", short},
		"pairs":                  {shortPairs, short},
		"pairs, one a line":      {"# ours\r\n" + strings.ReplaceAll(shortPairs, " ", "\r\n") + "\r\n", short},
		"pairs among a cmdline":  {"ro quiet console=ttyS0 " + shortPairs + " -- powernode.platform_url=https://no", short},
		"pairs, quoted":          {`powernode.ca_pem="` + pem + "\"\npowernode.platform_url='" + server + "'", identity.Raw{CA: pem, PlatformURL: server}},
		"pairs, comment":         {"#powernode.clock=local\npowernode.platform_url=" + server, identity.Raw{PlatformURL: server}},
		"pairs, last wins":       {"powernode.clock=platform\npowernode.clock=local", identity.Raw{Clock: "local"}},
		"lines":                  {shortLines, short},
		"lines, all":             {shortLines + "export CA_PEM=\"" + pem + "\"\nCA_URL=https://10.0.0.1/ca.pem # where\nCA_SHA256=" + digest + "\nPROXY=http://u:p@proxy:3128\nCLOCK=local\nREGION=eu\n", whole},
		"lines in DOS's":         {strings.ReplaceAll(shortLines, "\n", "\r\n"), short},
		"cloud-config":           {shortCloud, short},
		"cloud-config, dashes":   {"#cloud-config\npowernode: {platform-url: '" + server + "', unknown: [1], clock: ~}\n", identity.Raw{PlatformURL: server}},
		"cloud-config, digits":   {"#cloud-config\npowernode: {bootstrap_token: 0012345678901234567890}\n", identity.Raw{Token: "0012345678901234567890"}},
		"cloud-config, alias":    {"#cloud-config\nx: &x\n  platform_url: &u " + server + "\npowernode: *x\n", identity.Raw{PlatformURL: server}},
		"cloud-config, block":    {"#cloud-config\npowernode:\n  ca_pem: |\n    " + strings.ReplaceAll(pem, "\n", "\n    ") + "\n", identity.Raw{CA: pem}},
		"cloud-config, binary":   {"#cloud-config\npowernode:\n  platform_url: !!binary " + code(server) + "\n", identity.Raw{PlatformURL: server}},
		"write_files":            {writes(entry("/etc/motd", "", "hi"), entry("/etc/identity.cfg", "", shortLines)), short},
		"write_files, boot":      {writes(entry("/boot//identity.cfg", "text/plain", shortLines)), short},
		"write_files, b64":       {writes(entry("/etc/identity.cfg", "b64", code(shortLines))), short},
		"write_files, base64":    {writes(entry("/etc/identity.cfg", "base64", wrapped(shortLines))), short},
		"write_files, gz+b64":    {writes(entry("/etc/identity.cfg", "gz+b64", code(zip(shortLines)))), short},
		"write_files, gzip+b":    {writes(entry("/etc/identity.cfg", "gzip+base64", code(zip(shortLines)))), short},
		"write_files, gz":        {writes("- {path: /etc/identity.cfg, encoding: gz, content: !!binary " + code(zip(shortLines)) + "}\n"), short},
		"write_files, CA":        {writes(entry("/etc/identity.cfg", "", shortLines+"CA_PEM_FILE=powernode/ca.pem"), entry("/etc/powernode/ca.pem", "b64", code(pem))), identity.Raw{InstanceID: instance, Token: token, PlatformURL: server, CA: pem}},
		"write_files, CA wins":   {writes(entry("/etc/identity.cfg", "", "CA_PEM_FILE=/nowhere\nCA_PEM='"+pem+"'")), identity.Raw{CA: pem}},
		"MIME":                   {message(part("text/x-shellscript", script), part("text/cloud-config", shortCloud)), short},
		"MIME in DOS's lines":    {strings.ReplaceAll(message(part("text/cloud-config", shortCloud)), "\n", "\r\n"), short},
		"MIME, cloud-config":     {message(part("text/cloud-config", strings.TrimPrefix(shortCloud, "#cloud-config\n"))), short},
		"MIME, base64":           {message(coded("text/plain", script), coded("text/plain", shortLines)), short},
		"MIME, zipped part":      {message(coded("application/gzip", zip(shortCloud))), short},
		"MIME, quoted":           {message("Content-Type: text/plain\nContent-Transfer-Encoding: quoted-printable\n\nSERVER=3Dhttps://10.0.0.1=\n:8443\n"), identity.Raw{PlatformURL: server}},
		"MIME of one":            {"MIME-Version: 1.0\nContent-Type: text/plain\nContent-Transfer-Encoding: base64\n\n" + wrapped(shortPairs), short},
		"MIME in MIME":           {message("Content-Type: multipart/mixed; boundary=b\n\n--b\n\n" + shortJSON + "\n--b--\n"), short},
		"MIME, no type":          {message("\n" + shortJSON), short},
		"gzip":                   {zip(shortLines), short},
		"gzip, two members":      {zip("ID="+instance+"\nKEY="+token+"\n") + zip("SERVER="+server+"\n"), short},
		"base64":                 {code(shortLines), short},
		"base64 of a URL, bare":  {base64.RawURLEncoding.EncodeToString([]byte(shortLines)), short},
		"base64 in lines":        {wrapped(shortCloud), short},
		"base64, gzip":           {code(zip(shortJSON)), short},
		"base64, gzip, MIME":     {code(zip(message(coded("text/plain", zip(shortJSON))))), short},
		"a token of base64 form": {"KEY=" + strings.TrimRight(token, "="), identity.Raw{Token: strings.TrimRight(token, "=")}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Parse([]byte(c.in))
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range identity.Fields() {
				if d := cmp.Diff(*c.want.At(f), *got.At(f)); d != "" {
					t.Errorf("%s: %s", f, d)
				}
			}
		})
	}
}

func TestNothing(t *testing.T) {
	for in, why := range map[string]string{
		"":                                     "the user-data is empty",
		" \r\n\t":                              "is empty",
		"\ufeff":                               "is empty",
		"#!/bin/sh\nID=1\nKEY=2":               "is a script",
		"#! /usr/bin/env powernode.clock=x":    "is a script",
		"#cloud-config\npackages: [nginx]\n":   "without a word for powernode",
		"#cloud-config\n{{{ broken, not ours":  "without a word for powernode",
		"#cloud-config\npowernode_x: 1\n":      "without a word for powernode",
		"#cloud-config\n# powernode\n":         "without a word for powernode",
		"#cloud-config\npowernode: {other: 1}": "without a word for powernode",
		"#cloud-config\n" + "write_files: [{path: /etc/powernode, content: x}]": "without a word",
		"#cloud-config-archive\n- x":                      "is for another program",
		"#include\nhttps://example.com/powernode":         "is for another program",
		"#cloud-boothook\n#!/bin/sh":                      "is for another program",
		"## template: jinja\n#cloud-config\npowernode: 1": "is a template",
		`{"ignition":{"version":"3.4.0"}}`:                "is a JSON object that names no identity",
		`{broken`:                                         "is a JSON object that names no identity",
		`{"powernode":{"other":1}}`:                       "is a JSON object that names no identity",
		`{"bootstrap_token":""}`:                          "is a JSON object that names no identity",
		"hello":                                           "names no identity",
		"test":                                            "names no identity", // it is base64, too
		"REGION=eu\nCLOCK=local":                          "names no identity",
		"[section]\nID: 1":                                "names no identity",
		"powernode.other=1":                               "names no identity",
		"SERVER=\nID=''":                                  "names no identity",
		"\x7fELF\x00\x01":                                 "isn't a text",
		"\xff\xfe\x00":                                    "isn't a text",
		code("\xff\xfe powernode"):                        "names no identity",
		zip(""):                                           "is empty",
		message(part("text/x-shellscript", "#!/bin/sh\n"), "\n\n"): "no part of it names an identity",
		"Content-Type: text/plain\n\nhello":                        "names no identity",
	} {
		raw, err := Parse([]byte(in))
		if !errors.Is(err, identity.ErrNotFound) || !strings.Contains(err.Error(), why) || !raw.IsZero() {
			t.Errorf("%.60q: %v, want %q", in, err, why)
		}
	}
}

// TestDamaged also proves that no error shows what may be a secret.
func TestDamaged(t *testing.T) {
	const hidden = "hiddenhiddenhidden"
	deep := zip(shortJSON)
	for range MaxDepth {
		deep = zip(deep)
	}
	for name, c := range map[string]struct{ in, why string }{
		"too large":             {strings.Repeat(" ", MaxBytes+1), "larger than 65536 bytes"},
		"too deep":              {deep, "wrapped more than 6 times"},
		"bomb":                  {zip(strings.Repeat("\x00", 60<<20)), "larger than 262144 bytes when"},
		"bomb in a bomb":        {zip(zip(strings.Repeat(" ", 60<<20))), "when it is unpacked"},
		"bomb of members":       {strings.Repeat(zip(strings.Repeat(" ", 100<<10)), 3), "when it is unpacked"},
		"gzip cut off":          {zip(strings.Repeat(shortLines, 99))[:60], "damaged gzip, or cut off"},
		"gzip with a tail":      {zip(shortLines) + hidden, "damaged gzip"},
		"gzip in name":          {"\x1f\x8b" + hidden, "begins as gzip and isn't"},
		"JSON cut off":          {`{"bootstrap_token":"` + hidden, "isn't JSON after byte"},
		"JSON with a tail":      {shortJSON + hidden, "goes on after its JSON object"},
		"JSON, number":          {`{"bootstrap_token":1234567890}`, "has a bootstrap_token that isn't a string"},
		"JSON, list":            {`{"powernode":["` + hidden + `"]}`, "isn't a JSON object"},
		"JSON, deep":            {`{"powernode":` + strings.Repeat("[", 40000), "isn't JSON"},
		"JSON, file":            {`{"platform_url":"x","ca_file":"/` + hidden + `"}`, "by a file"},
		"JSON, twice":           {`{"clock":"local","powernode":{"bootstrap_token":"` + hidden + `"}}`, "twice"},
		"pairs, file":           {"powernode.ca_file=/" + hidden, "by a file"},
		"pairs, open quote":     {`powernode.bootstrap_token="` + hidden, "whose quote isn't closed"},
		"lines, damaged":        {"KEY=" + hidden + "x\n" + hidden, "its lines: line 2 is neither"},
		"lines, quote":          {"KEY='" + hidden, "line 1 opens isn't closed"},
		"lines, file":           {"CA_PEM_FILE=/" + hidden, "by a file"},
		"YAML, damaged":         {"#cloud-config\npowernode:\n  bootstrap_token: \"" + hidden + "\n", "isn't YAML"},
		"YAML, anchor":          {"#cloud-config\npowernode: *" + hidden, "isn't YAML"},
		"YAML, list":            {"#cloud-config\npowernode: [" + hidden + "]", "isn't a mapping"},
		"YAML, top":             {"#cloud-config\n- powernode: " + hidden, "isn't a mapping"},
		"YAML, nested value":    {"#cloud-config\npowernode: {bootstrap_token: [" + hidden + "]}", "powernode.bootstrap_token that isn't a single value (line 2)"},
		"YAML, binary":          {"#cloud-config\npowernode: {bootstrap_token: !!binary '*" + hidden + "'}", "isn't the base64"},
		"YAML, twice":           {shortCloud + "powernode: {clock: local}\n", "twice"},
		"YAML, deep":            {"#cloud-config\npowernode: " + strings.Repeat("[", 30000), "isn't YAML"},
		"write_files, map":      {"#cloud-config\nwrite_files: {path: /etc/identity.cfg}", "isn't a list"},
		"write_files, text":     {"#cloud-config\nwrite_files: [/etc/identity.cfg]", "isn't a mapping"},
		"write_files, content":  {"#cloud-config\nwrite_files: [{path: /etc/identity.cfg, content: [" + hidden + "]}]", "isn't a single value"},
		"write_files, encoding": {writes(entry("/etc/identity.cfg", hidden, "x")), "encoding that isn't known"},
		"write_files, b64":      {writes(entry("/etc/identity.cfg", "b64", "*"+hidden)), "isn't the base64"},
		"write_files, gz":       {writes(entry("/etc/identity.cfg", "gz+b64", code(hidden))), "begins as gzip and isn't"},
		"write_files, lines":    {writes(entry("/etc/identity.cfg", "", hidden)), "/etc/identity.cfg: line 1 is neither"},
		"write_files, twice":    {writes(entry("/etc/identity.cfg", "", shortLines), entry("/boot/identity.cfg", "", "KEY="+hidden)), "twice"},
		"write_files, no CA":    {writes(entry("/etc/identity.cfg", "", "CA_PEM_FILE=/"+hidden)), "by a file"},
		"write_files, bombs": {"#cloud-config\nx: &x " + code(zip(strings.Repeat("#\n", 60<<10))) + "\nwrite_files:\n" +
			strings.Repeat("- {path: /etc/identity.cfg, encoding: gz+b64, content: *x}\n", 99), "when it is unpacked"},
		"MIME, no boundary":  {"Content-Type: multipart/mixed\n\n--x\n\n" + hidden, "without a boundary"},
		"MIME, header":       {"Content-Type: text/plain\n" + hidden + "\n\nx", "header can't be read"},
		"MIME, cut off":      {strings.TrimSuffix(message(part("text/plain", hidden)), "--===============1==--\n"), "damaged or cut off"},
		"MIME, base64":       {message("Content-Transfer-Encoding: base64\n\n*" + hidden), "isn't the base64"},
		"MIME, twice":        {message("\nKEY="+hidden, "\n"+shortPairs), "twice, in its lines and in its powernode.* pairs"},
		"MIME, many parts":   {message(strings.Split(strings.Repeat("\n,", MaxParts), ",")...), "more than 64 MIME parts"},
		"MIME, deep":         {strings.Repeat("Content-Type: text/plain\n\n", MaxDepth+1), "wrapped more than 6 times"},
		"MIME, damaged part": {message(part("text/cloud-config", "powernode: '"+hidden)), "isn't YAML"},
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := Parse([]byte(c.in))
			if err == nil || errors.Is(err, identity.ErrNotFound) || !raw.IsZero() {
				t.Fatalf("accepted: %v", err)
			}
			if !strings.Contains(err.Error(), c.why) || !strings.HasPrefix(err.Error(), "the user-data ") {
				t.Errorf("%v, want %q", err, c.why)
			}
			if strings.Contains(err.Error(), hidden) {
				t.Errorf("the error shows a value: %v", err)
			}
		})
	}
}

// TestAliases reads a document whose aliases stand for 10^9 values.
func TestAliases(t *testing.T) {
	doc := "#cloud-config\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
	for i := range 9 {
		doc += fmt.Sprintf("a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i), 10), ", "))
	}
	_, err := Parse([]byte(doc + "powernode: {platform_url: '" + server + "'}\nwrite_files: *a9\n"))
	if err == nil || !strings.Contains(err.Error(), "isn't a mapping") {
		t.Errorf("write_files of lists: %v", err)
	}
	raw, err := Parse([]byte(doc + "powernode: {platform_url: '" + server + "', other: *a9}\n"))
	if err != nil || raw.PlatformURL != server {
		t.Errorf("%v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		shortJSON, shortPairs, shortLines, shortCloud, zip(shortJSON), code(zip(shortLines)),
		message(part("text/cloud-config", shortCloud), coded("text/plain", shortPairs)),
		writes(entry("/etc/identity.cfg", "gz+b64", code(zip(shortLines+"CA_PEM_FILE=/ca"))), entry("/ca", "b64", code(pem))),
		"#cloud-config\nx: &x {clock: local}\npowernode: *x\n", "#!/bin/sh\n", "## template: jinja\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		raw, err := Parse(data)
		switch {
		case err == nil && raw.IsZero():
			t.Error("nothing was found, and no error says so")
		case err != nil && !raw.IsZero():
			t.Error("something was found beside an error")
		case raw.CAFile != "":
			t.Error("a file of the machine is named")
		}
		again, err2 := Parse(data)
		if again != raw || (err == nil) != (err2 == nil) {
			t.Error("read twice, it says different things")
		}
	})
}
