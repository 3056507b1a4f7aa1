package agentcli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/identity"
	"github.com/powernode/powernode-agent/internal/secret"
	"github.com/powernode/powernode-agent/internal/signedtime"
	"github.com/powernode/powernode-agent/internal/version"
)

// source says in o how to find out what to enroll with, and what the flags insist on.
func (f *enrollFlags) source(app *cli.App, o *enroll.Options) error {
	if err := f.place(app, o); err != nil || !f.claim {
		return err
	}
	o.Given, o.Discover = true, f.claimed(app, o, o.Discover)
	return nil
}

// place is source without a claim.
func (f *enrollFlags) place(app *cli.App, o *enroll.Options) error {
	if err := f.checkInstance(); err != nil {
		return err
	}
	read := f.tokenReader(app)
	o.Given = read != nil
	if f.platformURL != "" || f.caFile != "" || f.caURL != "" || f.caSHA256 != "" {
		return f.named(read, o)
	}
	o.Wish.InstanceID = f.instanceID
	if read != nil && f.identityFile == "" && f.identitySources == "" {
		// A person who gives a token to a node that knows its platform needs to say no more.
		state, err := enroll.Inspect(o.Dir, enroll.Wish{}, o.Clock.Now())
		if err != nil {
			return err
		}
		if state.Credentials != nil {
			b := state.Credentials.Bootstrap()
			b.InstanceID = f.instanceID // the token may be another instance's
			o.Discover = withToken(read, b, o)
			return nil
		}
	}
	only, err := identitySources(f.identitySources)
	if err != nil {
		return err
	}
	where := usualPlaces(app.Machine, f.identityFile)
	if only != nil {
		where.Only = only
	}
	o.Discover = func(ctx context.Context) (enroll.Bootstrap, error) {
		i, _, err := (identity.Resolver{Sources: where.Sources()}).Resolve(ctx)
		if (f.claim || read != nil) && i.OnlyTokenMissing() {
			err = nil
		}
		if err != nil && read != nil {
			err = fault.New(fault.Refuse, fault.Input, "name the platform with --platform-url and --ca-file", "a token alone doesn't say where to enroll: %w", err)
		}
		if err == nil && o.Proxy != nil {
			i.Proxy, err = identity.ParseProxy(o.Proxy.Reveal())
		}
		if err != nil {
			return enroll.Bootstrap{}, err
		}
		switch {
		case f.instanceID != "":
			i.InstanceID = f.instanceID
		case read != nil && !i.Token.IsZero() && i.From.InstanceID == i.From.Token:
			i.InstanceID = "" // it goes with the token that the person replaces
		}
		b, err := boot.Bootstrap(ctx, i, o.Backoff, o.Notify)
		if err != nil {
			return b, err
		}
		// A token that a person gives goes before the sources'.
		return withToken(read, b, o)(ctx)
	}
	return nil
}

// checkInstance judges --instance-id as any other source's is.
func (f *enrollFlags) checkInstance() (err error) {
	if f.instanceID == "" {
		return nil
	}
	if f.instanceID, err = identity.ParseInstanceID(f.instanceID); err != nil {
		return fault.New(fault.Refuse, fault.Input, "give the node's ID as powernode node list shows it", "--instance-id: %w", err)
	}
	return nil
}

// named is source for a platform that the flags name.
func (f *enrollFlags) named(read func() (secret.Text, error), o *enroll.Options) error {
	if f.platformURL == "" || f.caFile == "" && f.caSHA256 == "" {
		return fault.New(fault.Refuse, fault.Input, "give --platform-url, and --ca-file or --ca-sha256",
			"enroll this node: a platform is named by its URL and by its CA certificate, or that one's fingerprint")
	}
	// What the flags say is judged as any other source is.
	raw := identity.Raw{PlatformURL: f.platformURL, CAURL: f.caURL, CASHA256: f.caSHA256}
	if o.Proxy != nil {
		raw.Proxy = o.Proxy.Reveal()
	}
	if f.caFile != "" {
		ca, err := readBounded(f.caFile, nil)
		if err != nil {
			return err
		}
		raw.CA = string(ca)
	}
	found, err := raw.Check("the command line", func(field identity.Field) string {
		if field == identity.FieldCA {
			return "--ca-file"
		}
		return "--" + strings.ReplaceAll(field.String(), "_", "-")
	})
	if err != nil {
		return err
	}
	i := identity.Identity{
		InstanceID: f.instanceID, PlatformURL: found.PlatformURL, CAPEM: found.CAPEM, CAURL: found.CAURL, CASHA256: found.CASHA256, Proxy: found.Proxy,
	}
	o.Wish = enroll.Wish{PlatformURL: i.PlatformURL, InstanceID: i.InstanceID, CAPEM: i.CAPEM}
	o.Discover = func(ctx context.Context) (enroll.Bootstrap, error) {
		b, err := boot.Bootstrap(ctx, i, o.Backoff, o.Notify)
		if err != nil {
			return b, err
		}
		return withToken(read, b, o)(ctx)
	}
	return nil
}

// withToken returns a way to find b out, with the token that read reads when it is needed; nil reads none.
func withToken(read func() (secret.Text, error), b enroll.Bootstrap, o *enroll.Options) func(context.Context) (enroll.Bootstrap, error) {
	b = settings(b, o)
	return func(context.Context) (enroll.Bootstrap, error) {
		if read == nil {
			return b, nil
		}
		token, err := read()
		b.Token = token
		return b, err
	}
}

// settings has the flags go before what a source says.
func settings(b enroll.Bootstrap, o *enroll.Options) enroll.Bootstrap {
	if o.Proxy != nil {
		b.Proxy = *o.Proxy
	}
	if o.LocalClock != nil {
		b.LocalClock = *o.LocalClock
	}
	return b
}

// tokenCredential is the name of the systemd credential with the token.
const tokenCredential = "powernode.bootstrap_token"

// tokenReader returns what reads the token that was given; nil where none was. It is read only once it is
// needed, since it may come from standard input.
func (f *enrollFlags) tokenReader(app *cli.App) func() (secret.Text, error) {
	switch {
	case f.token != "":
		return func() (secret.Text, error) { return parseToken(f.token, "on the command line") }
	case f.tokenFile == "-":
		return func() (secret.Text, error) { return readToken("standard input", app.In) }
	case f.tokenFile != "":
		return func() (secret.Text, error) { return readToken(f.tokenFile, nil) }
	}
	// The usual sources know of the credential themselves.
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" && f.platformURL != "" {
		path := filepath.Join(dir, tokenCredential)
		if _, err := os.Stat(path); err == nil {
			return func() (secret.Text, error) { return readToken(path, nil) }
		}
	}
	return nil
}

func readToken(path string, from io.Reader) (secret.Text, error) {
	text, err := readBounded(path, from)
	if err != nil {
		return secret.Text{}, err
	}
	return parseToken(firstLine(text), "in "+path)
}

func parseToken(text, where string) (secret.Text, error) {
	token, err := identity.ParseToken(text)
	if err != nil {
		return token, fault.New(fault.Refuse, fault.Input, "give the whole token that powernode token create printed", "read the token %s: %w", where, err)
	}
	return token, nil
}

// openClock returns the clock that certificates are judged by on a running node.
func openClock(stateDir string) *signedtime.Clock {
	return signedtime.Open(stateDir, signedtime.Options{Floor: []time.Time{version.Get().Written()}})
}

// smallFile bounds files that a person names on the command line, in bytes.
const smallFile = 1 << 20

// readBounded reads a file of at most smallFile bytes, or from instead where it isn't nil.
func readBounded(path string, from io.Reader) ([]byte, error) {
	if from == nil {
		f, err := os.Open(path)
		if err != nil {
			return nil, fault.New(fault.Refuse, fault.Input, "name a file that can be read", "%w", err)
		}
		defer f.Close()
		from = f
	}
	data, err := io.ReadAll(io.LimitReader(from, smallFile+1))
	if err == nil && len(data) > smallFile {
		err = fmt.Errorf("it is larger than %d bytes", smallFile)
	}
	if err != nil {
		return nil, fault.New(fault.Refuse, fault.Input, "name another file", "read %s: %w", path, err)
	}
	return data, nil
}

// firstLine returns the text up to the first line end.
func firstLine(text []byte) string {
	for i, c := range text {
		if c == '\n' || c == '\r' {
			return string(text[:i])
		}
	}
	return string(text)
}
