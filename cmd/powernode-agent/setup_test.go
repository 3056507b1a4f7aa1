package main

import (
	"os"
	"testing"

	"github.com/powernode/powernode-agent/test/alone"
)

func TestMain(m *testing.M) { os.Exit(alone.Main(m.Run)) }

func TestAlone(t *testing.T) { alone.Check(t) }
