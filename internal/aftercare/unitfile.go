package aftercare

import (
	"slices"
	"strings"
)

// setting is one line of a unit file.
type setting struct{ section, key, value string }

// parseUnit reads a unit file as systemd.syntax(7) has it: sections, settings, lines that go on after a backslash,
// comments. What is neither is passed over, as systemd does.
func parseUnit(text string) []setting {
	var settings []setting
	section, line := "", ""
	for raw := range strings.Lines(text) {
		raw = strings.TrimSpace(raw)
		if strings.HasPrefix(raw, "#") || strings.HasPrefix(raw, ";") {
			continue // amid a line that goes on, too
		}
		line += raw
		if before, more := strings.CutSuffix(line, `\`); more {
			line = before + " "
			continue
		}
		whole := line
		line = ""
		if name, ok := strings.CutPrefix(whole, "["); ok && strings.HasSuffix(name, "]") {
			section = strings.TrimSuffix(name, "]")
			continue
		}
		if key, value, ok := strings.Cut(whole, "="); ok {
			settings = append(settings, setting{section, strings.TrimSpace(key), strings.TrimSpace(value)})
		}
	}
	return settings
}

// weighty returns the settings that a running unit gets to know only by a restart: not those of [Unit] and
// [Install], which take effect when systemd reads its units, nor those of other programs (X-…).
func weighty(settings []setting) []setting {
	return slices.DeleteFunc(settings, func(s setting) bool {
		return s.section == "Unit" || s.section == "Install" || strings.HasPrefix(s.section, "X-") || strings.HasPrefix(s.key, "X-")
	})
}

// find returns the last value of a setting.
func find(settings []setting, section, key string) string {
	value := ""
	for _, s := range settings {
		if s.section == section && s.key == key {
			value = s.value
		}
	}
	return value
}

// kindOf returns a unit's suffix without the dot: "service".
func kindOf(unit string) string { return unit[strings.LastIndexByte(unit, '.')+1:] }

// unitKinds are the suffixes of systemd.unit(5).
var unitKinds = []string{"service", "socket", "device", "mount", "automount", "swap", "target", "path", "timer", "slice", "scope"}

func isUnit(name string) bool {
	return strings.Contains(name, ".") && !strings.HasPrefix(name, ".") && slices.Contains(unitKinds, kindOf(name))
}

// templateOf returns the template of an instance: "getty@.service" for "getty@tty1.service"; "" for other units.
func templateOf(unit string) string {
	at := strings.IndexByte(unit, '@')
	dot := strings.LastIndexByte(unit, '.')
	if at < 0 || dot < at+1 || dot == at+1 {
		return ""
	}
	return unit[:at+1] + unit[dot:]
}

// dropInNames returns the directories, without ".d", whose drop-ins count for a unit (systemd.unit(5)): its own, its
// template's, and those of every prefix that ends in a dash. The ones for all units of a kind aren't among them.
func dropInNames(unit string) []string {
	names := []string{unit}
	if t := templateOf(unit); t != "" {
		names = append(names, t)
	}
	kind := "." + kindOf(unit)
	stem := strings.TrimSuffix(unit, kind)
	for i := len(stem) - 2; i > 0; i-- {
		if stem[i] == '-' {
			names = append(names, stem[:i+1]+kind)
		}
	}
	return names
}
