package faults

import (
	"bytes"
	"time"
)

// fault is something that happens to a request.
type fault struct {
	name   string
	strike func(x *exchange)
	// times is how often it strikes at most; 0 is no bound.
	times int
}

// faults are all of them. Those before the first lost answer keep the request from the platform, or at least from being whole.
var faults = []fault{
	{name: "connection refused", strike: func(x *exchange) { x.p.outage(refused); x.reset() }},
	{name: "black hole", strike: func(x *exchange) { x.p.outage(hole); x.hang() }},
	{name: "TLS alert", strike: func(x *exchange) { x.p.outage(alert); x.reset() }},
	{name: "TLS alert about the certificate", strike: func(x *exchange) { x.p.outage(certificateAlert); x.reset() }},
	{name: "reset", strike: func(x *exchange) { x.reset() }},
	{name: "closed", strike: func(x *exchange) { x.again = false }},
	{name: "half-open", strike: func(x *exchange) { x.hang() }},
	{name: "delay", strike: func(x *exchange) { time.Sleep(4 * time.Second); x.pass() }},
	{name: "request cut", strike: func(x *exchange) {
		if err := x.up.send(x.r, x.body, len(x.body)/2); err != nil {
			x.p.t.Error(err)
		}
		x.up.close()
		x.reset()
	}},
	{name: "401", strike: func(x *exchange) { x.say(401, `{"success":false,"error":"no","code":"UNAUTHORIZED"}`) }},
	// A task whose lease was lost five times is given up, which others test.
	{name: "409", strike: func(x *exchange) { x.say(409, `{"success":false,"error":"no","code":"CONFLICT"}`) }, times: 4},
	{name: "429", strike: func(x *exchange) {
		x.say(429, `{"success":false,"error":"slowly","code":"RATE_LIMITED"}`, "Retry-After", "40")
	}},
	{name: "500", strike: func(x *exchange) { x.say(500, `{"success":false,"error":"oh","code":"INTERNAL_ERROR"}`) }},
	{name: "502", strike: func(x *exchange) { x.say(502, "<html>Bad Gateway</html>", "Content-Type", "text/html") }},
	{name: "503", strike: func(x *exchange) { x.say(503, `{"success":false,"error":"later"}`, "Retry-After", "70") }},
	{name: "redirect", strike: func(x *exchange) { x.say(302, "", "Location", "https://192.0.2.1/") }},
	{name: "garbage", strike: func(x *exchange) { x.say(200, "{\"success\":true,\"data\":[\x00\xff") }},
	{name: "nothing", strike: func(x *exchange) { x.say(200, "") }},
	{name: "a page", strike: func(x *exchange) { x.say(200, "<html>log in here</html>", "Content-Type", "text/html") }},
	{name: "success without data", strike: func(x *exchange) { x.say(200, `{"success":true}`) }},
	{name: "success with empty data", strike: func(x *exchange) { x.say(200, `{"success":true,"data":{}}`) }},
	{name: "huge", strike: func(x *exchange) {
		x.write(x.head(answer{status: 200}, 1<<40), []byte(`{"success":true,"data":"`))
		for more := bytes.Repeat([]byte("a"), 32<<10); x.write(more); {
		}
	}},
	{name: "answer lost", strike: func(x *exchange) { x.forward(); x.reset() }},
	{name: "answer late", strike: func(x *exchange) {
		a, ok := x.forward()
		time.Sleep(100 * time.Second)
		if ok {
			x.reply(a)
		}
	}},
	{name: "answer cut", strike: func(x *exchange) {
		if a, ok := x.forward(); ok {
			x.write(x.head(a, len(a.body)), a.body[:len(a.body)/2])
		}
		x.again = false
	}},
	{name: "answer stands still", strike: func(x *exchange) {
		if a, ok := x.forward(); ok {
			x.write(x.head(a, len(a.body)), a.body[:len(a.body)/2])
		}
		x.hang()
	}},
	{name: "length too long", strike: func(x *exchange) {
		if a, ok := x.forward(); ok {
			x.write(x.head(a, len(a.body)+100), a.body)
		}
		x.again = false
	}},
	{name: "length too short", strike: func(x *exchange) {
		if a, ok := x.forward(); ok {
			x.write(x.head(a, len(a.body)-10), a.body)
		}
	}},
}

// hang leaves the connection half open: it is there, and nothing comes.
func (x *exchange) hang() { x.wire.mute() }
