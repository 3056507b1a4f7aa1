// Package nodeapitest holds no program code: its tests run the agent's identity, enrollment,
// client and heartbeat against a whole platform, over real TLS on loopback, in one process.
package nodeapitest
