package claim

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	"rsc.io/qr"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// Sign is what the person before a machine is shown.
type Sign struct {
	// Code is the claim code as the wire has it.
	Code        string
	PlatformURL string
}

// URL returns the address that tells a person what the operator does with the code.
func (s Sign) URL() string { return s.PlatformURL + "/claim/" + s.Code }

// Lines says it in words.
func (s Sign) Lines() []string {
	code := nodeapi.ShowClaimCode(s.Code)
	return []string{
		"This machine waits to be claimed. Its code: " + code,
		"The operator runs: powernode claim accept " + code + " --node NODE",
		"or opens " + s.URL(),
	}
}

// Size is that of a terminal, in characters. The zero Size is no terminal.
type Size struct{ Columns, Rows int }

// usual is the size of a terminal that doesn't know its own, as one at a serial line.
var usual = Size{80, 24}

// wrappings is how many writers may lie about a terminal.
const wrappings = 8

// SizeOf returns the size of the terminal that w is, or writes to by its method Unwrap and those of what it wraps; else the zero Size.
func SizeOf(w io.Writer) Size {
	for range wrappings {
		outer, ok := w.(interface{ Unwrap() io.Writer })
		if !ok {
			break
		}
		w = outer.Unwrap()
	}
	f, ok := w.(*os.File)
	if !ok {
		return Size{}
	}
	// TCGETS is what only terminals answer.
	if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err != nil {
		return Size{}
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Col == 0 || size.Row == 0 {
		return usual
	}
	return Size{int(size.Col), int(size.Row)}
}

// Draw returns the picture of the code that belongs above Lines on a terminal of that size: the code in large letters, and a QR code of its URL,
// as far as both fit beside the lines; none without a terminal. Where the QR code doesn't fit, or can't be, the last line says so.
func (s Sign) Draw(size Size) []string {
	if size.Columns <= 0 || size.Rows <= 0 {
		return nil
	}
	// The lines of words, one for the cursor.
	free := size.Rows - len(s.Lines()) - 1
	letters := large(nodeapi.ShowClaimCode(s.Code))
	if widthOf(letters) > size.Columns || len(letters)+1 > free {
		letters = nil
	}
	picture, err := qrLines(s.URL())
	switch {
	case err != nil:
		return append(letters, "(the platform's URL is too long for a QR code)")
	case qrWidth(picture) > size.Columns || len(picture) > free:
		return append(letters, fmt.Sprintf("(this terminal of %d x %d characters is too small for the QR code, which takes %d x %d)",
			size.Columns, size.Rows, qrWidth(picture), len(picture)+size.Rows-free))
	case len(letters)+len(picture)+1 > free:
		return picture
	}
	return append(append(letters, ""), picture...)
}

// The quiet zone that a QR code needs on each side, in modules (ISO/IEC 18004, 6.3.8), and the colours that make it dark on light
// whatever the terminal's own are.
const (
	quiet     = 4
	darkOn    = "\x1b[30;47m"
	coloursBy = "\x1b[0m"
)

// qrLines draws the QR code of a text, two modules in each character.
func qrLines(text string) ([]string, error) {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return nil, err
	}
	var lines []string
	for y := -quiet; y < code.Size+quiet; y += 2 {
		var b strings.Builder
		b.WriteString(darkOn)
		for x := -quiet; x < code.Size+quiet; x++ {
			b.WriteRune(halves(code.Black(x, y), code.Black(x, y+1)))
		}
		b.WriteString(coloursBy)
		lines = append(lines, b.String())
	}
	return lines, nil
}

// qrWidth returns the width of a QR code in characters.
func qrWidth(lines []string) int { return widthOf(lines) - len(darkOn) - len(coloursBy) }

func widthOf(lines []string) int {
	most := 0
	for _, l := range lines {
		most = max(most, len([]rune(l)))
	}
	return most
}

// halves returns the character whose upper and lower half are inked so. Linux's own console has all four.
func halves(upper, lower bool) rune {
	switch {
	case upper && lower:
		return '█'
	case upper:
		return '▀'
	case lower:
		return '▄'
	}
	return ' '
}
