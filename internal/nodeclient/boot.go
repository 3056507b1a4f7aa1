package nodeclient

import (
	"context"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
)

// BootReport tells the platform of one boot, in one attempt. What is beyond the bounds of a report
// is cut off: a long report is worth more than none.
func (c *Client) BootReport(ctx context.Context, report nodeapi.BootReport) error {
	const doing = "report a boot"
	var answer nodeapi.BootReportResponse
	call := nodehttp.Call{Doing: doing, Method: http.MethodPost, Path: nodeapi.PathBootReports, Body: ClipBootReport(report), Into: &answer}
	if err := c.do(ctx, call); err != nil {
		return err
	}
	if !answer.Acknowledged {
		return fault.New(fault.Retry, fault.Platform, hintPlatform, doing+": the platform didn't acknowledge it")
	}
	return nil
}

// ClipBootReport returns a report that the platform doesn't refuse for its size or its characters:
// long texts lose their ends, long lists their middles.
func ClipBootReport(r nodeapi.BootReport) nodeapi.BootReport {
	text := func(s string) string { return clip(s, nodeapi.MaxBootText) }
	word := func(s string) string { return clip(s, nodeapi.MaxBootWord) }
	r.BootID, r.AgentVersion, r.Mode, r.IntegrityLevel = word(r.BootID), word(r.AgentVersion), word(r.Mode), word(r.IntegrityLevel)
	r.Stage, r.Failure = word(r.Stage), text(r.Failure)
	stages := clipList(r.Stages, nodeapi.MaxBootStages)
	r.Stages = make([]nodeapi.BootStage, len(stages))
	for i, s := range stages {
		s.Name, s.Result, s.Error = word(s.Name), text(s.Result), text(s.Error)
		s.BegunMillis, s.Millis = max(s.BegunMillis, 0), max(s.Millis, 0)
		r.Stages[i] = s
	}
	r.Remarks = clipTexts(r.Remarks, nodeapi.MaxBootRemarks)
	r.StartedMillis, r.EndedMillis = max(r.StartedMillis, 0), max(r.EndedMillis, 0)
	for _, trial := range []**nodeapi.BootTrial{&r.Trial, &r.Fallback} {
		if *trial != nil {
			clipped := **trial
			clipped.Reason = text(clipped.Reason)
			*trial = &clipped
		}
	}
	return r
}

// clipTexts returns a list of at most most sentences.
func clipTexts(list []string, most int) []string {
	var clipped []string
	for _, s := range clipList(list, most) {
		clipped = append(clipped, clip(s, nodeapi.MaxBootText))
	}
	return clipped
}

// clipList keeps the first and the last of a list.
func clipList[T any](list []T, most int) []T {
	if len(list) <= most {
		return list
	}
	head := most / 2
	return append(append(make([]T, 0, most), list[:head]...), list[len(list)-(most-head):]...)
}

// clip makes a text printable and at most most bytes long, without cutting a character in two.
func clip(s string, most int) string {
	s = strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(s, "?"))
	if len(s) <= most {
		return s
	}
	s = s[:most]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s
}
