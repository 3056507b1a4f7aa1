package bootconfig

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/device"
)

// key is one setting: how its value is read, which reports whether it could be, its form in words, and
// whether a value that can't be read must end the boot because the default may be less than was asked for.
type key struct {
	set    func(c *Config, value string) bool
	form   string
	guards bool
	// mistaken, if any, sets what counts after a value that can't be read, where neither what was set before nor the end of the boot will do.
	mistaken func(c *Config, value string)
}

// apply sets the value, or says which form it should have.
func (k key) apply(c *Config, value string) error {
	if k.set(c, value) {
		return nil
	}
	return fmt.Errorf("%.40q doesn't serve; it is %s", value, k.form)
}

// The bounds of settings.
const (
	triesMax       = 100
	networkMin     = time.Second
	networkMax     = time.Hour
	healthMin      = 10 * time.Second
	healthMax      = 24 * time.Hour
	persistWaitMax = 30 * time.Minute
)

// keys are all settings, by the name that they bear in the file and, after Prefix, on the kernel
// command line.
var keys = map[string]key{
	"persist":         {set: persist, form: "LABEL=, UUID=, PARTLABEL=, PARTUUID= or SERIAL= with the name of a device, a path below /dev, or memory"},
	"persist_prepare": word(func(c *Config) *string { return &c.PersistPrepare }, No, Empty),
	"persist_timeout": length(func(c *Config) *time.Duration { return &c.PersistTimeout }, time.Second, persistWaitMax),
	"network":         word(func(c *Config) *string { return &c.Network }, Auto, Off),
	"network_timeout": length(func(c *Config) *time.Duration { return &c.NetworkTimeout }, networkMin, networkMax),
	"upper":           word(func(c *Config) *string { return &c.Upper }, Tmpfs, OnPersist),
	"upper_size":      {set: upperSize, form: "a size like 512m or 25%"},
	"etc":             word(func(c *Config) *string { return &c.Etc }, Ephemeral, Persistent),
	"integrity":       guarding(word(func(c *Config) *string { return &c.Integrity }, Checked, Enforced)),
	"break":           {set: breakAt, form: "the name of a stage"},
	"tries":           {set: tries, form: fmt.Sprintf("a number from 1 to %d", triesMax)},
	"health_timeout":  length(func(c *Config) *time.Duration { return &c.HealthTimeout }, healthMin, healthMax),
	"platform":        word(func(c *Config) *string { return &c.Platform }, Required, Optional),
	"identity":        {set: identitySet, form: "one or several of " + strings.Join(identitySources, ", ") + ", separated by commas", mistaken: identityMistaken},
	"generation":      {set: generation, form: "a generation's number from 1 on"},
}

func guarding(k key) key {
	k.guards = true
	return k
}

// word returns a setting that is one of some words.
func word(field func(*Config) *string, words ...string) key {
	return key{form: strings.Join(words, " or "), set: func(c *Config, value string) bool {
		if !slices.Contains(words, value) {
			return false
		}
		*field(c) = value
		return true
	}}
}

// length returns a setting that is a time between two bounds: as Go writes it, or in seconds.
func length(field func(*Config) *time.Duration, least, most time.Duration) key {
	return key{form: fmt.Sprintf("a time like 90s or 5m, from %s to %s", least, most), set: func(c *Config, value string) bool {
		d, err := parseLength(value)
		if err != nil || d < least || d > most {
			return false
		}
		*field(c) = d
		return true
	}}
}

func parseLength(value string) (time.Duration, error) {
	if n, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(n) * time.Second, nil
	}
	return time.ParseDuration(value)
}

func persist(c *Config, value string) bool {
	if _, err := device.ParseSpec(value); err != nil && value != Memory {
		return false
	}
	c.Persist = value
	return true
}

// sizeForm is what tmpfs takes as a size (mm/shmem.c), without the units that no machine has.
var sizeForm = regexp.MustCompile(`^([1-9][0-9]{0,11}[kKmMgG]?|100%|[1-9][0-9]?%)$`)

func upperSize(c *Config, value string) bool {
	if !sizeForm.MatchString(value) {
		return false
	}
	c.UpperSize = value
	return true
}

// stageForm is what a stage's name looks like; which ones there are is the boot's to say.
var stageForm = regexp.MustCompile(`^[a-z]{1,20}$`)

func breakAt(c *Config, value string) bool {
	if !stageForm.MatchString(value) {
		return false
	}
	c.Break = value
	return true
}

func tries(c *Config, value string) bool {
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || n > triesMax {
		return false
	}
	c.Tries = n
	return true
}

func generation(c *Config, value string) bool {
	n, err := strconv.ParseUint(value, 10, 63)
	if err != nil || n == 0 {
		return false
	}
	c.Generation = n
	return true
}
