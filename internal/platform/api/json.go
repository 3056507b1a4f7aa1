package api

import (
	"bytes"
	"encoding/json"
	"net/http"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// maxDepth bounds how deep a JSON document of a node's or an operator's own making is nested.
const maxDepth = 32

// jsonObject returns a JSON object of at most limit bytes in its compact form; nothing, and null, are "".
func jsonObject(name string, raw json.RawMessage, limit int) (string, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return "", nil
	}
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil || b.Bytes()[0] != '{' {
		return "", invalid("%s: want a JSON object", name)
	}
	if b.Len() > limit {
		return "", refuse(http.StatusRequestEntityTooLarge, nodeapi.CodeTooLarge, "%s of more than %d bytes", name, limit)
	}
	if depth(b.Bytes()) > maxDepth {
		return "", invalid("%s: nested more than %d deep", name, maxDepth)
	}
	return b.String(), nil
}

// depth returns how deep a valid JSON document is nested.
func depth(doc []byte) int {
	deepest, now, quoted := 0, 0, false
	for i := 0; i < len(doc); i++ {
		switch c := doc[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}
