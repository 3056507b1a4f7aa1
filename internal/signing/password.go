package signing

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"

	"github.com/powernode/powernode-agent/internal/fault"
)

// The environment variables that may hold a key's password, in the order in which they are asked.
const (
	EnvPassword       = "POWERNODE_KEY_PASSWORD" //nolint:gosec // a name, not a password
	EnvPasswordCosign = "COSIGN_PASSWORD"        //nolint:gosec // a name, not a password
)

// passwordMax is the longest password in bytes.
const passwordMax = 4096

// PasswordSource says where a password may come from. It never comes from the command line's
// arguments, which every process on the machine can read.
type PasswordSource struct {
	// File is a path; "" for none. The password is its first line without the line's end.
	File string
	// LookupEnv is os.LookupEnv: a variable that is set and empty is an empty password.
	LookupEnv func(string) (string, bool)
	// Prompt asks a person; nil where nobody can be asked.
	Prompt func(question string) ([]byte, error)
}

// Read returns the password from the first source that has one: the file, the environment, the
// person. With confirm set a person is asked twice. Without any source it is a fault.Refuse in
// area Input.
func (s PasswordSource) Read(confirm bool) ([]byte, error) {
	if s.File != "" {
		return s.fromFile()
	}
	if s.LookupEnv != nil {
		for _, name := range []string{EnvPassword, EnvPasswordCosign} {
			if value, ok := s.LookupEnv(name); ok {
				return []byte(value), nil
			}
		}
	}
	if s.Prompt == nil {
		return nil, fault.New(fault.Refuse, fault.Input, "set "+EnvPassword+" (it may be empty) or name a password file",
			"the signing key's password is not known and there is no terminal to ask at")
	}
	password, err := s.Prompt("Password of the signing key (empty for none): ")
	if err != nil {
		return nil, fmt.Errorf("ask for the signing key's password: %w", err)
	}
	if !confirm {
		return password, nil
	}
	again, err := s.Prompt("The same again: ")
	if err != nil {
		return nil, fmt.Errorf("ask for the signing key's password: %w", err)
	}
	if !bytes.Equal(password, again) {
		return nil, fault.New(fault.Refuse, fault.Input, "type it again", "the two passwords differ")
	}
	return password, nil
}

func (s PasswordSource) fromFile() ([]byte, error) {
	f, err := os.Open(s.File)
	if err != nil {
		return nil, fault.New(fault.Refuse, fault.Input, "name a file that holds the password", "read the signing key's password: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, passwordMax+2))
	if err != nil {
		return nil, fault.New(fault.Refuse, fault.Input, "name a file that holds the password", "read the signing key's password: %w", err)
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) > passwordMax {
		return nil, fault.New(fault.Refuse, fault.Input, "name a file that holds the password and nothing else",
			"the first line of %s is longer than %d bytes", s.File, passwordMax)
	}
	return line, nil
}

// TerminalPrompt returns a function for PasswordSource.Prompt that asks on out and reads from tty
// without echo, or nil if tty isn't a terminal.
func TerminalPrompt(tty *os.File, out io.Writer) func(string) ([]byte, error) {
	if tty == nil || !term.IsTerminal(int(tty.Fd())) {
		return nil
	}
	return func(question string) ([]byte, error) {
		fmt.Fprint(out, question)
		password, err := term.ReadPassword(int(tty.Fd()))
		fmt.Fprintln(out)
		if errors.Is(err, io.EOF) {
			return nil, fault.New(fault.Refuse, fault.Input, "type a password, or only Enter for none", "no password was given")
		}
		return password, err
	}
}
