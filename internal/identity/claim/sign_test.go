package claim

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

var sign = Sign{Code: "ABCDEFGH", PlatformURL: "https://platform.example:8443"}

// scan reads what qrLines drew, as a camera would: dark on light, whole, with its quiet zone.
func scan(t *testing.T, lines []string) [][]bool {
	t.Helper()
	var dots [][]bool
	for _, l := range lines {
		text, ok := strings.CutPrefix(l, darkOn)
		text, end := strings.CutSuffix(text, coloursBy)
		if !ok || !end {
			t.Fatalf("%q has no colours of its own", l)
		}
		var upper, lower []bool
		for _, c := range text {
			upper, lower = append(upper, c == '█' || c == '▀'), append(lower, c == '█' || c == '▄')
		}
		dots = append(dots, upper, lower)
	}
	dots = dots[:len(dots[0])] // the sides are odd
	size := len(dots) - 2*quiet
	for y, row := range dots {
		for x, dark := range row {
			inside := y >= quiet && y < quiet+size && x >= quiet && x < quiet+size
			if dark && !inside {
				t.Fatalf("no quiet zone at %d, %d", x, y)
			}
		}
	}
	code := make([][]bool, size)
	for y := range code {
		code[y] = dots[quiet+y][quiet : quiet+size]
	}
	return code
}

// decode reads a QR code of versions 2 to 5, level L, in byte mode, without errors (ISO/IEC 18004, 8).
func decode(t *testing.T, code [][]bool) string {
	t.Helper()
	size := len(code)
	if size < 25 || size > 37 {
		t.Fatalf("a side of %d", size)
	}
	format := 0
	for _, p := range [][2]int{{0, 8}, {1, 8}, {2, 8}, {3, 8}, {4, 8}} { // x, y: the first five bits
		format <<= 1
		if code[p[1]][p[0]] {
			format |= 1
		}
	}
	format ^= 0b10101
	if format>>3 != 0b01 {
		t.Fatalf("format %05b isn't level L", format)
	}
	masks := []func(x, y int) bool{
		func(x, y int) bool { return (x+y)%2 == 0 },
		func(_, y int) bool { return y%2 == 0 },
		func(x, _ int) bool { return x%3 == 0 },
		func(x, y int) bool { return (x+y)%3 == 0 },
		func(x, y int) bool { return (y/2+x/3)%2 == 0 },
		func(x, y int) bool { return x*y%2+x*y%3 == 0 },
		func(x, y int) bool { return (x*y%2+x*y%3)%2 == 0 },
		func(x, y int) bool { return ((x+y)%2+x*y%3)%2 == 0 },
	}
	mask := masks[format&7]
	function := func(x, y int) bool {
		in := func(x0, y0, x1, y1 int) bool { return x >= x0 && x <= x1 && y >= y0 && y <= y1 }
		a := size - 7 // the centre of the one alignment pattern
		return in(0, 0, 8, 8) || in(size-8, 0, size-1, 8) || in(0, size-8, 8, size-1) || x == 6 || y == 6 || in(a-2, a-2, a+2, a+2)
	}
	var bits []bool
	up := true
	for right := size - 1; right > 0; right -= 2 {
		if right == 6 {
			right--
		}
		for i := range size {
			y := i
			if up {
				y = size - 1 - i
			}
			for _, x := range []int{right, right - 1} {
				if !function(x, y) {
					bits = append(bits, code[y][x] != mask(x, y))
				}
			}
		}
		up = !up
	}
	take := func(n int) (v int) {
		for _, b := range bits[:n] {
			if v <<= 1; b {
				v |= 1
			}
		}
		bits = bits[n:]
		return v
	}
	if mode := take(4); mode != 0b0100 {
		t.Fatalf("mode %04b", mode)
	}
	text := make([]byte, take(8))
	for i := range text {
		text[i] = byte(take(8))
	}
	return string(text)
}

func TestQRCode(t *testing.T) {
	for _, platform := range []string{"https://p.io", "https://10.0.0.1:8443", "https://platform.example:8443", "https://" + strings.Repeat("long-name.", 6) + "example"} {
		s := Sign{Code: "Z2346789", PlatformURL: platform}
		lines, err := qrLines(s.URL())
		if err != nil {
			t.Fatal(err)
		}
		if got := decode(t, scan(t, lines)); got != s.URL() {
			t.Errorf("%s: reads as %q", s.URL(), got)
		}
	}
}

// TestQRCodeByAnother has zbarimg read the code, where somebody has installed it: decode is of the same hand as what it tests.
func TestQRCodeByAnother(t *testing.T) {
	tool, err := exec.LookPath("zbarimg")
	if err != nil {
		t.Skip("zbarimg isn't installed (Debian: zbar-tools)")
	}
	lines, err := qrLines(sign.URL())
	if err != nil {
		t.Fatal(err)
	}
	code := scan(t, lines)
	const scale, margin = 6, 4
	side := (len(code) + 2*margin) * scale
	picture := image.NewGray(image.Rect(0, 0, side, side))
	for y := range side {
		for x := range side {
			row, column := y/scale-margin, x/scale-margin
			dark := row >= 0 && row < len(code) && column >= 0 && column < len(code) && code[row][column]
			if picture.SetGray(x, y, color.Gray{255}); dark {
				picture.SetGray(x, y, color.Gray{0})
			}
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, picture); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "code.png")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), tool, "--quiet", "--raw", path).Output()
	if err != nil || strings.TrimSpace(string(out)) != sign.URL() {
		t.Errorf("zbarimg: %v, %q", err, out)
	}
}

func TestDraw(t *testing.T) {
	qrRows := func(lines []string) (n int) {
		for _, l := range lines {
			if strings.HasPrefix(l, darkOn) {
				n++
			}
		}
		return n
	}
	for _, tc := range []struct {
		name    string
		size    Size
		large   bool
		code    bool
		message string
	}{
		{"no terminal", Size{}, false, false, ""},
		{"large", Size{120, 50}, true, true, ""},
		{"usual", Size{80, 24}, false, true, ""},
		{"Linux's console", Size{80, 25}, false, true, ""},
		{"low", Size{80, 20}, true, false, "80 x 20 characters is too small"},
		{"narrow", Size{30, 50}, false, false, "takes 37 x 23"},
		{"tiny", Size{10, 3}, false, false, "too small"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			lines := sign.Draw(tc.size)
			text := strings.Join(lines, "\n")
			if (qrRows(lines) > 0) != tc.code || (strings.Contains(strings.ReplaceAll(text, darkOn, "\x1b"), "▄▀▀▀▄") && lines[0][0] != '\x1b') != tc.large || !strings.Contains(text, tc.message) || tc.message == "" && strings.Contains(text, "(") {
				t.Errorf("%d lines:\n%s", len(lines), text)
			}
			if tc.message == "" && len(lines) > 0 && len(lines)+len(sign.Lines())+1 > tc.size.Rows {
				t.Errorf("%d lines and %d of words don't fit", len(lines), len(sign.Lines()))
			}
		})
	}
	long := Sign{Code: "ABCDEFGH", PlatformURL: "https://p.example/" + strings.Repeat("x", 3000)}
	if text := strings.Join(long.Draw(Size{200, 200}), "\n"); !strings.Contains(text, "too long for a QR code") {
		t.Error(text)
	}
	for _, l := range sign.Lines() {
		if len(l) > 78 {
			t.Errorf("%d characters: %s", len(l), l)
		}
	}
	if got := SizeOf(&bytes.Buffer{}); got != (Size{}) {
		t.Error(got)
	}
	if f, err := os.Open(os.DevNull); err != nil || SizeOf(f) != (Size{}) {
		t.Error(err)
	}
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	if got := SizeOf(wrapped{wrapped{terminal}}); got != usual {
		t.Errorf("a terminal that doesn't know its size, wrapped twice: %v", got)
	}
}

// wrapped is a writer about another one.
type wrapped struct{ io.Writer }

func (w wrapped) Unwrap() io.Writer { return w.Writer }

// TestLetters checks that each character of a claim code has a shape, and no two the same.
func TestLetters(t *testing.T) {
	seen := map[[7]uint8]byte{}
	for _, c := range []byte(nodeapi.ClaimAlphabet + "-") {
		glyph, ok := letters[c]
		if other, twice := seen[glyph]; !ok || twice {
			t.Errorf("%c: there %v, as %c", c, ok, other)
		}
		seen[glyph] = c
		for _, row := range glyph {
			if row >= 1<<5 {
				t.Errorf("%c is wider than five dots", c)
			}
		}
	}
	if lines := large("ABCD-EFGH"); len(lines) != 4 || widthOf(lines) > 54 {
		t.Errorf("%q", lines)
	}
}
