// Package docs tests the documents against the programs: links lead somewhere, examples parse,
// command lines name commands and flags that exist, commands that the text promises a result of
// are run, and lists of packages and keys are those of the code.
//
// It holds no program code. What a page says in prose stays its author's business. Some pages have
// tests beside the code that they are about, too: exit codes, the trust policy, the protocol, the
// JSON of the agent.
package docs
