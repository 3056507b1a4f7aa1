package userdata

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/textproto"
	"strings"
)

var gzipMagic = []byte{0x1f, 0x8b}

// gunzip unpacks data as far as the whole budget goes and no further.
func (p *parser) gunzip(data []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, errors.New("begins as gzip and isn't")
	}
	plain, err := io.ReadAll(io.LimitReader(z, int64(p.left)+1))
	if spent := p.spend(len(plain)); spent != nil {
		return nil, spent
	}
	if err != nil {
		return nil, errors.New("is damaged gzip, or cut off")
	}
	return plain, nil
}

// decodeBase64 decodes a text that is base64 and nothing else: of either alphabet, padded or not,
// with white space anywhere.
func decodeBase64(text string) ([]byte, bool) {
	text = strings.Join(strings.Fields(text), "")
	text = strings.NewReplacer("-", "+", "_", "/").Replace(text)
	trimmed := strings.TrimRight(text, "=")
	if pad := len(text) - len(trimmed); trimmed == "" || pad > 2 || pad > 0 && len(text)%4 != 0 {
		return nil, false
	}
	plain, err := base64.RawStdEncoding.DecodeString(trimmed)
	return plain, err == nil
}

// isMIME tells a MIME message by its first header, as cloud-init's own and AWS's examples begin.
func isMIME(first string) bool {
	name, _, ok := strings.Cut(first, ":")
	return ok && (strings.EqualFold(name, "Content-Type") || strings.EqualFold(name, "MIME-Version"))
}

// mime reads a message: its header, and then what its body is.
func (p *parser) mime(text string, depth int) (string, error) {
	r := bufio.NewReader(strings.NewReader(text))
	header, err := textproto.NewReader(r).ReadMIMEHeader()
	if err != nil && !errors.Is(err, io.EOF) {
		return "", errors.New("begins as a MIME message whose header can't be read")
	}
	body, err := io.ReadAll(r)
	if err != nil {
		return "", errors.New("begins as a MIME message and can't be read")
	}
	return p.part(header, body, depth)
}

// part reads a MIME message's body, or one of its parts.
func (p *parser) part(header textproto.MIMEHeader, body []byte, depth int) (string, error) {
	if depth++; depth > MaxDepth {
		return "", fmt.Errorf("is wrapped more than %d times in gzip, base64 and MIME", MaxDepth)
	}
	if err := p.spend(len(body)); err != nil {
		return "", err
	}
	kind, params, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil {
		kind = "" // it then tells by its first line what it is
	}
	if strings.HasPrefix(kind, "multipart/") {
		return p.multipart(body, params["boundary"], depth)
	}
	// quoted-printable is decoded by package multipart.
	if strings.EqualFold(strings.TrimSpace(header.Get("Content-Transfer-Encoding")), "base64") {
		plain, ok := decodeBase64(string(body))
		if !ok {
			return "", errors.New("has a MIME part that isn't the base64 that it says")
		}
		body = plain
	}
	if kind == "text/cloud-config" && !bytes.HasPrefix(body, gzipMagic) {
		return p.cloudConfig(string(body))
	}
	return p.read(body, depth)
}

func (p *parser) multipart(body []byte, boundary string, depth int) (string, error) {
	if boundary == "" {
		return "", errors.New("has a MIME message without a boundary")
	}
	for r := multipart.NewReader(bytes.NewReader(body), boundary); ; {
		part, err := r.NextPart()
		if errors.Is(err, io.EOF) && p.parts > 0 {
			return "is a MIME message, and no part of it names an identity", nil
		}
		if err != nil {
			return "", errors.New("has a MIME message that is damaged or cut off")
		}
		if p.parts++; p.parts > MaxParts {
			return "", fmt.Errorf("has more than %d MIME parts", MaxParts)
		}
		text, err := io.ReadAll(part)
		if err != nil {
			return "", fmt.Errorf("has a MIME message whose part %d is damaged or cut off", p.parts)
		}
		if _, err := p.part(part.Header, text, depth); err != nil {
			return "", err
		}
	}
}
