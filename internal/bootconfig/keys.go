package bootconfig

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/device"
)

// key is one setting: how its value is read, its form in words, and whether a value that can't be
// read must end the boot because the default may be less than was asked for.
type key struct {
	set    func(c *Config, value string) error
	form   string
	guards bool
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
	"persist":         {persist, "it is LABEL=, UUID=, PARTLABEL=, PARTUUID=, SERIAL=, a path below /dev, or memory", false},
	"persist_prepare": word(func(c *Config) *string { return &c.PersistPrepare }, No, Empty),
	"persist_timeout": length(func(c *Config) *time.Duration { return &c.PersistTimeout }, time.Second, persistWaitMax),
	"network":         word(func(c *Config) *string { return &c.Network }, Auto, Off),
	"network_timeout": length(func(c *Config) *time.Duration { return &c.NetworkTimeout }, networkMin, networkMax),
	"upper":           word(func(c *Config) *string { return &c.Upper }, Tmpfs, OnPersist),
	"upper_size":      {upperSize, "it is a size like 512m or 25%", false},
	"etc":             word(func(c *Config) *string { return &c.Etc }, Ephemeral, Persistent),
	"integrity":       guarding(word(func(c *Config) *string { return &c.Integrity }, Checked, Enforced)),
	"break":           {breakAt, "it is the name of a stage", false},
	"tries":           {tries, fmt.Sprintf("it is a number from 1 to %d", triesMax), false},
	"health_timeout":  length(func(c *Config) *time.Duration { return &c.HealthTimeout }, healthMin, healthMax),
	"platform":        word(func(c *Config) *string { return &c.Platform }, Required, Optional),
	"generation":      {generation, "it is a generation's number", false},
}

func guarding(k key) key {
	k.guards = true
	return k
}

// word returns a setting that is one of some words.
func word(field func(*Config) *string, words ...string) key {
	form := "it is " + strings.Join(words, " or ")
	return key{func(c *Config, value string) error {
		if !slices.Contains(words, value) {
			return fmt.Errorf("%.40q isn't known; %s", value, form)
		}
		*field(c) = value
		return nil
	}, form, false}
}

// length returns a setting that is a time between two bounds: as Go writes it, or in seconds.
func length(field func(*Config) *time.Duration, least, most time.Duration) key {
	form := fmt.Sprintf("it is a time like 90s or 5m, from %s to %s", least, most)
	return key{func(c *Config, value string) error {
		d, err := parseLength(value)
		if err != nil || d < least || d > most {
			return fmt.Errorf("%.40q doesn't serve; %s", value, form)
		}
		*field(c) = d
		return nil
	}, form, false}
}

func parseLength(value string) (time.Duration, error) {
	if n, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(n) * time.Second, nil
	}
	return time.ParseDuration(value)
}

func persist(c *Config, value string) error {
	if value != Memory {
		if _, err := device.ParseSpec(value); err != nil {
			return err
		}
	}
	c.Persist = value
	return nil
}

// sizeForm is what tmpfs takes as a size (mm/shmem.c), without the units that no machine has.
var sizeForm = regexp.MustCompile(`^([1-9][0-9]{0,11}[kKmMgG]?|100%|[1-9][0-9]?%)$`)

func upperSize(c *Config, value string) error {
	if !sizeForm.MatchString(value) {
		return fmt.Errorf("%.40q isn't a size like 512m or 25%%", value)
	}
	c.UpperSize = value
	return nil
}

// stageForm is what a stage's name looks like; which ones there are is the boot's to say.
var stageForm = regexp.MustCompile(`^[a-z]{1,20}$`)

func breakAt(c *Config, value string) error {
	if !stageForm.MatchString(value) {
		return fmt.Errorf("%.40q isn't the name of a stage", value)
	}
	c.Break = value
	return nil
}

func tries(c *Config, value string) error {
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || n > triesMax {
		return fmt.Errorf("%.40q isn't a number from 1 to %d", value, triesMax)
	}
	c.Tries = n
	return nil
}

func generation(c *Config, value string) error {
	n, err := strconv.ParseUint(value, 10, 63)
	if err != nil || n == 0 {
		return errors.New("a generation has a number from 1")
	}
	c.Generation = n
	return nil
}
