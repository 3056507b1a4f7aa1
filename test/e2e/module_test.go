package e2e

import (
	"os"
	"runtime"
	"strings"
	"sync"

	"github.com/powernode/powernode-agent/test/lab"
)

type mod = lab.Module

// hostArch is what the tests run on.
const hostArch = runtime.GOARCH

var initProgram = sync.OnceValue(func() []byte {
	b, err := os.ReadFile(program("init"))
	if err != nil {
		panic(err)
	}
	return b
})

// base returns the module with the init, without which nothing boots.
func base(version string) mod { return lab.Base(version, initProgram()) }

// sharedText is in both of the modules below, under several paths, one of them in both.
var sharedText = strings.Repeat("the same content in two modules ", 10)

// site returns a module that overrides the page of app.
func site(version string) mod {
	return mod{Name: "site", Version: version, Files: map[string]string{
		"etc/app/page": "the site's page, version " + version + ", " + strings.Repeat("longer than what lies in the image itself ", 4),
		"usr/share/x":  sharedText,
		"usr/share/xy": sharedText,
	}}
}

// app returns a module with content of its own and some that site overrides.
func app(version string) mod {
	return mod{Name: "app", Version: version, Files: map[string]string{
		"etc/app/page":     "the app's page, version " + version + ", " + strings.Repeat("longer than what lies in the image itself ", 4),
		"usr/lib/app/data": strings.Repeat("the app's data ", 4096),
		"usr/share/y":      sharedText,
		"usr/share/xy":     sharedText,
	}}
}
