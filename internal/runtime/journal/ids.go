package journal

// messageIDs are the messages that a person may want to find again, whatever their words become, by 128 bits that
// stay (sd-id128(3)). The table is in docs/service.md.
var messageIDs = map[string]string{
	"the agent serves": "8d0e5c8f8b3d4a0fa3b1c0f1f2d60001",
	"the agent ends":   "8d0e5c8f8b3d4a0fa3b1c0f1f2d60002",
	"the platform acknowledged the first heartbeat":              "8d0e5c8f8b3d4a0fa3b1c0f1f2d60003",
	"the platform acknowledges heartbeats again":                 "8d0e5c8f8b3d4a0fa3b1c0f1f2d60004",
	"the heartbeat failed":                                       "8d0e5c8f8b3d4a0fa3b1c0f1f2d60005",
	"a task is begun":                                            "8d0e5c8f8b3d4a0fa3b1c0f1f2d60010",
	"a task is complete":                                         "8d0e5c8f8b3d4a0fa3b1c0f1f2d60011",
	"a task failed":                                              "8d0e5c8f8b3d4a0fa3b1c0f1f2d60012",
	"a task is told to end":                                      "8d0e5c8f8b3d4a0fa3b1c0f1f2d60013",
	"audit":                                                      "8d0e5c8f8b3d4a0fa3b1c0f1f2d60014",
	"the machine restarts":                                       "8d0e5c8f8b3d4a0fa3b1c0f1f2d60015",
	"the node isn't in step with the platform":                   "8d0e5c8f8b3d4a0fa3b1c0f1f2d60020",
	"a service of a module isn't as it should be":                "8d0e5c8f8b3d4a0fa3b1c0f1f2d60030",
	"a service of a module is as it should be again":             "8d0e5c8f8b3d4a0fa3b1c0f1f2d60031",
	"the node's certificate can't be kept up":                    "8d0e5c8f8b3d4a0fa3b1c0f1f2d60040",
	"a loop is stuck; the watchdog isn't told of life any more":  "8d0e5c8f8b3d4a0fa3b1c0f1f2d60050",
	"no tasks are taken: the journal of tasks can't be read":     "8d0e5c8f8b3d4a0fa3b1c0f1f2d60051",
	"the records of some tasks are damaged: they count as begun": "8d0e5c8f8b3d4a0fa3b1c0f1f2d60052",
	"the platform doesn't take an event: it is given up":         "8d0e5c8f8b3d4a0fa3b1c0f1f2d60053",
	"the platform answers, and so what went live stays":          "8d0e5c8f8b3d4a0fa3b1c0f1f2d60060",
	"a command has ended while the service was away":             "8d0e5c8f8b3d4a0fa3b1c0f1f2d60061",
	"this machine's clock and the platform's differ":             "8d0e5c8f8b3d4a0fa3b1c0f1f2d60062",
}

// MessageID returns the ID of a message, or "" for one that has none.
func MessageID(message string) string { return messageIDs[message] }

// MessageIDs returns all messages that have one.
func MessageIDs() map[string]string {
	all := make(map[string]string, len(messageIDs))
	for message, id := range messageIDs {
		all[message] = id
	}
	return all
}
