package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"
)

// recorder gathers times.
type recorder struct {
	mu   sync.Mutex
	list []time.Duration
}

func (r *recorder) add(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, d)
}

// take returns what was gathered, sorted, and begins anew.
func (r *recorder) take() distribution {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.list
	r.list = nil
	slices.Sort(list)
	return list
}

// distribution is sorted times.
type distribution []time.Duration

// at returns the time within which that share of all are; 0 where there are none.
func (d distribution) at(share float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	return d[min(int(share*float64(len(d))), len(d)-1)]
}

// usage is what processes have used: processors' time in all, and the memory that is theirs now, in bytes.
type usage struct {
	cpu      time.Duration
	resident int64
}

// ticks is how many a second /proc/PID/stat counts in, on every Linux that Go runs on.
const ticks = 100

// usageOf returns that of a process: proc(5).
func usageOf(pid int) (usage, error) {
	fields, err := stat(pid)
	if err != nil {
		return usage{}, err
	}
	var n [3]int64
	// utime, stime and rss are the fields 14, 15 and 24; the first two aren't in the list.
	for i, at := range []int{14 - 3, 15 - 3, 24 - 3} {
		if n[i], err = strconv.ParseInt(string(fields[at]), 10, 64); err != nil {
			return usage{}, err
		}
	}
	return usage{cpu: time.Duration(n[0]+n[1]) * time.Second / ticks, resident: n[2] * int64(os.Getpagesize())}, nil
}

// stat returns the fields of /proc/PID/stat from the third on: the second is a name with whatever is in it.
func stat(pid int) ([][]byte, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 24 {
		return nil, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields))
	}
	return fields, nil
}

// usageOfServer returns the processors' time of a process and its children, as PostgreSQL has one for each connection. Their
// memory is mostly one and the same, and isn't added up.
func usageOfServer(pid int) (usage, error) {
	all, err := usageOf(pid)
	if err != nil {
		return usage{}, err
	}
	list, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return usage{}, err
	}
	parent := []byte(strconv.Itoa(pid))
	for _, dir := range list {
		child, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			return usage{}, err
		}
		fields, err := stat(child)
		if err != nil || !bytes.Equal(fields[1], parent) {
			continue // another's, or gone since
		}
		u, err := usageOf(child)
		if _, gone := errors.AsType[*fs.PathError](err); err != nil && !gone {
			return usage{}, err
		}
		all.cpu += u.cpu
	}
	return all, nil
}
