// Package operatorapi is the contract between the operator's programs and the platform: paths,
// wire structs and the credential file.
//
// It promises that both sides, and nothing else, speak through it; the frame around every answer
// is nodeapi.Envelope. It imports only the standard library and trusts nothing: who reads a
// struct off the wire checks what is in it.
package operatorapi
