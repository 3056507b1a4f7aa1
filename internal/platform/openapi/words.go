package openapi

import (
	_ "embed"
	"encoding/json"
	"fmt"
)

// words are what the sources of the wire's packages say, which a program doesn't know of itself any more: the comments on types and
// fields, and the constants of types.
type words struct {
	// Types are by "package.Type", Fields by "package.Type.json_name".
	Types  map[string]string `json:"types"`
	Fields map[string]string `json:"fields"`
	// Values are the constants of types of texts, in their order.
	Values map[string][]string `json:"values"`
}

// wordsJSON is made out of the sources by `go test ./internal/platform/openapi -update`; without -update that test
// compares them.
//
//go:embed words.json
var wordsJSON []byte

func readWords() (words, error) {
	var w words
	if err := json.Unmarshal(wordsJSON, &w); err != nil {
		return w, fmt.Errorf("the words of the OpenAPI document: %w", err)
	}
	return w, nil
}
