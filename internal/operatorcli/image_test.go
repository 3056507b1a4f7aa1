package operatorcli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/oracle"
)

const sampleDump = `/ 4096 40755 3 0 0 0 0.0 - - - user.x=1
/bin 3 120777 1 0 0 0 0.0 usr - -
/gone 0 20000 1 0 0 0 0.0 - - -
/null 0 20666 1 0 0 259 0.0 - - -
/usr 4096 41755 2 0 0 0 0.0 - - -
/usr/large 70000 104755 2 5 6 0 1700000000.0 ab/cd - -
/usr/large.link 70000 @104755 2 5 6 0 1700000000.0 /usr/large - -
/usr/small\x1b[2J 3 100644 1 0 0 0 0.0 - abc -
`

// powernode runs a command that needs no platform.
func powernode(t *testing.T, ctx context.Context, in io.Reader, args ...string) (int, string, string) {
	t.Helper()
	var out, errs bytes.Buffer
	app := &cli.App{In: in, Out: &out, Err: &errs, Format: cli.Table, Getenv: func(string) string { return "" }}
	return app.Run(ctx, New(app), args), out.String(), errs.String()
}

// must runs a command that has to succeed, with the dump as standard input.
func must(t *testing.T, args ...string) string {
	t.Helper()
	code, out, errs := powernode(t, context.Background(), strings.NewReader(sampleDump), args...)
	if code != 0 || errs != "" {
		t.Fatalf("powernode %s: exit code %d: %s", strings.Join(args, " "), code, errs)
	}
	return out
}

func TestImageCommandsAgreeWithMkcomposefs(t *testing.T) {
	tool := oracle.Path(t, "mkcomposefs")
	dir := t.TempDir()
	dump := filepath.Join(dir, "dump")
	if err := os.WriteFile(dump, []byte(sampleDump), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "tree"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(dir, "tree", name), make([]byte, 1000), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"--from-file", dump},
		{"--from-file", "--min-version=0", dump},
		{"--from-file", "--max-version=0", dump},
		{"--from-file", "--min-version=0", "--max-version=1", dump},
		{"--from-file", "--min-version=1", dump},
		{filepath.Join(dir, "tree")},
		{"--use-epoch", "--min-version=1", filepath.Join(dir, "tree")},
	} {
		theirs, err := exec.Command(tool, append([]string{"--print-digest-only"}, args...)...).Output()
		if err != nil {
			t.Fatal(err)
		}
		if ours := must(t, append([]string{"image", "digest"}, args...)...); ours != string(theirs) {
			t.Errorf("%v: digest %s, mkcomposefs says %s", args, ours, theirs)
		}
		image := filepath.Join(dir, "image")
		out := must(t, append(append([]string{"image", "create"}, args...), image)...)
		if !strings.Contains(out, strings.TrimSpace(string(theirs))) {
			t.Errorf("%v: create prints %q", args, out)
		}
		theirImage, err := exec.Command(tool, append(append([]string{}, args...), "-")...).Output()
		if ourImage, err2 := os.ReadFile(image); err != nil || err2 != nil || !bytes.Equal(ourImage, theirImage) {
			t.Errorf("%v: images differ, %v, %v", args, err, err2)
		}
	}
}

func TestImageRoundTrip(t *testing.T) {
	image := filepath.Join(t.TempDir(), "image")
	var created createdImage
	if err := json.Unmarshal([]byte(must(t, "image", "create", "--from-file", "-", image, "--output", "json")), &created); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(image); err != nil || uint64(info.Size()) != created.Size || info.Mode().Perm() != 0o644 {
		t.Errorf("image %v, %v; want %d bytes", info, err, created.Size)
	}
	dump := must(t, "image", "dump", image)
	code, out, errs := powernode(t, context.Background(), strings.NewReader(dump), "image", "digest", "--from-file", "-")
	if code != 0 || out != created.Digest.String()+"\n" {
		t.Errorf("the dump's digest is %q (%s), want %s", out, errs, created.Digest)
	}
	if raw := must(t, "image", "create", "--from-file", "-", "-"); uint64(len(raw)) != created.Size {
		t.Errorf("%d bytes on standard output, want %d", len(raw), created.Size)
	}
	code, out, _ = powernode(t, context.Background(), strings.NewReader(must(t, "image", "create", "--from-file", "-", "-")), "image", "dump", "-")
	if code != 0 || out != dump {
		t.Error("an image from standard input has another dump")
	}
}

func TestImageList(t *testing.T) {
	image := filepath.Join(t.TempDir(), "image")
	must(t, "image", "create", "--from-file", "-", image)
	want := `drwxr-xr-x 0:0     0 1970-01-01 00:00:00 /
lrwxrwxrwx 0:0     3 1970-01-01 00:00:00 /bin -> usr
c--------- 0:0   0,0 1970-01-01 00:00:00 /gone
crw-rw-rw- 0:0   1,3 1970-01-01 00:00:00 /null
drwxr-xr-t 0:0     0 1970-01-01 00:00:00 /usr
-rwsr-xr-x 5:6 70000 2023-11-14 22:13:20 /usr/large @ ab/cd
-rwsr-xr-x 5:6 70000 2023-11-14 22:13:20 /usr/large.link = /usr/large
-rw-r--r-- 0:0     3 1970-01-01 00:00:00 /usr/small\x1b[2J
`
	if got := must(t, "image", "ls", image); got != want {
		t.Errorf("ls prints\n%swant\n%s", got, want)
	}
	if got := must(t, "image", "ls", image, "/usr/large/"); strings.Count(got, "\n") != 1 || !strings.Contains(got, " /usr/large @") {
		t.Errorf("ls of one file prints %q", got)
	}
	var entries []imageEntry
	if err := json.Unmarshal([]byte(must(t, "image", "ls", image, "usr", "-o", "json")), &entries); err != nil {
		t.Fatal(err)
	}
	if len(entries) != 4 || entries[1].Object != "ab/cd" || entries[2].Link != "/usr/large" || entries[1].Mode != "4755" || entries[0].Type != "directory" {
		t.Errorf("entries %+v", entries)
	}
}

func TestImageCommandsRefuseBadInput(t *testing.T) {
	dir := t.TempDir()
	file, broken := filepath.Join(dir, "file"), filepath.Join(dir, "broken")
	for path, content := range map[string]string{file: "no dump", broken: strings.Repeat("x", 8192)} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	image := filepath.Join(dir, "image")
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"create", file}, cli.ExitFailure, "accepts 2 arg(s)"},
		{[]string{"create", file, image}, cli.ExitFailure, "no directory; name a directory, or add --from-file"},
		{[]string{"create", filepath.Join(dir, "none"), image}, cli.ExitFailure, "no such file or directory; name a directory"},
		{[]string{"create", "--from-file", filepath.Join(dir, "none"), image}, cli.ExitFailure, "no such file or directory; name a file"},
		{[]string{"create", "--from-file", file, image}, cli.ExitFailure, file + ": read a composefs dump: line 1:"},
		{[]string{"digest", "--from-file", file}, cli.ExitFailure, "; name a dump that mkcomposefs or powernode image dump wrote"},
		{[]string{"digest", "--from-file", dir}, cli.ExitFailure, "is a directory; name a dump"},
		{[]string{"create", "--from-file", "-", filepath.Join(dir, "none", "image")}, cli.ExitFailure, "no such file or directory; name a file in a directory"},
		{[]string{"create", "--from-file", "--min-version=7", "-", image}, cli.ExitFailure, "use version 0 or 1"},
		{[]string{"create", "--min-version=x", "-", image}, cli.ExitFailure, "see powernode image create --help"},
		{[]string{"digest", "--from-file", "--use-epoch", "-"}, cli.ExitFailure, "use-epoch"},
		{[]string{"dump", filepath.Join(dir, "none")}, cli.ExitFailure, "no such file or directory"},
		{[]string{"dump", dir}, cli.ExitFailure, "is a directory"},
		{[]string{"dump", file}, cli.ExitFailure, "the size must be"},
		{[]string{"dump", "-"}, cli.ExitFailure, "standard input: read a composefs image"},
		{[]string{"ls", broken}, cli.ExitFailure, "magic"},
	} {
		code, out, errs := powernode(t, context.Background(), strings.NewReader(sampleDump), append([]string{"image"}, c.args...)...)
		if code != c.code || !strings.Contains(errs, c.want) || out != "" || strings.Count(errs, "\n") != 1 {
			t.Errorf("%v: code %d, %q, %q; want %d and %q", c.args, code, out, errs, c.code, c.want)
		}
	}
	if code, out, errs := powernode(t, context.Background(), strings.NewReader(""), "image", "dump", "-", "-o", "json"); code != cli.ExitFailure || out != "" || !strings.Contains(errs, "use image ls") {
		t.Errorf("a dump as JSON: code %d, %q, %q", code, out, errs)
	}
	if left, _ := os.ReadDir(dir); len(left) != 2 {
		t.Errorf("left behind: %v", left)
	}
}

func TestImageFromStandardInputCanBeInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	waiting, writer := io.Pipe()
	defer writer.Close()
	go func() {
		_, _ = writer.Write([]byte("/ 4096 40755 2 0 0 0 0.0 - - -\n"))
		cancel()
	}()
	if code, _, errs := powernode(t, ctx, waiting, "image", "digest", "--from-file", "-"); code != cli.ExitInterrupted {
		t.Errorf("code %d: %s", code, errs)
	}
}
