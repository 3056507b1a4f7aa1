package cloud

import (
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// machines are what the firmware of each cloud's machines says, as such machines were seen to say it.
var machines = map[string]map[string]string{
	AWS:          {"class/dmi/id/sys_vendor": "Amazon EC2", "class/dmi/id/product_name": "m5zn.12xlarge", "class/dmi/id/bios_vendor": "Amazon EC2", "class/dmi/id/board_asset_tag": "i-0af01c0123456789a"},
	GCP:          {"class/dmi/id/sys_vendor": "Google", "class/dmi/id/product_name": "Google Compute Engine", "class/dmi/id/bios_vendor": "Google"},
	Azure:        {"class/dmi/id/sys_vendor": "Microsoft Corporation", "class/dmi/id/product_name": "Virtual Machine", "class/dmi/id/chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77"},
	DigitalOcean: {"class/dmi/id/sys_vendor": "DigitalOcean", "class/dmi/id/product_name": "Droplet"},
	Hetzner:      {"class/dmi/id/sys_vendor": "Hetzner", "class/dmi/id/product_name": "vServer"},
}

// sysfs makes a directory with these files.
func sysfs(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		must(t, os.WriteFile(path, []byte(text+"\n"), 0o600))
	}
	return dir
}

// on returns the source of a cloud, on a machine of it.
func on(t *testing.T, name string) Source {
	t.Helper()
	for _, s := range Sources(Options{Sys: sysfs(t, machines[name])}) {
		if s.Name() == name {
			return s
		}
	}
	t.Fatalf("there is no source %s", name)
	return Source{}
}

// service behaves as the metadata services do: paths, headers and answers are theirs, by their
// documentation and by recorded exchanges. One service stands for all five, as their paths differ.
type service struct {
	// userData is what the machine was made with; nil if nothing.
	userData []byte
	// before, if any, answers a request in its stead and returns true.
	before func(w http.ResponseWriter, r *http.Request) bool

	mu    sync.Mutex
	asked []string // method and path of each request
}

const awsToken = "AQAEAIRkSmRRC_vTMA2ZlJ0KrnZkQwTbWjFOtKSqPWOxxyhxhvDbRQ=="

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked = append(s.asked, r.Method+" "+r.URL.RequestURI())
	s.mu.Unlock()
	if s.before != nil && s.before(w, r) {
		return
	}
	switch {
	case strings.HasPrefix(r.URL.Path, "/latest/"):
		s.aws(w, r)
	case strings.HasPrefix(r.URL.Path, "/computeMetadata/"):
		s.gcp(w, r)
	case strings.HasPrefix(r.URL.Path, "/metadata/instance/"):
		s.azure(w, r)
	case strings.HasPrefix(r.URL.Path, "/metadata/v1/"):
		s.plain(w, r, "/metadata/v1/user-data", "/metadata/v1/id", "2756294")
	case strings.HasPrefix(r.URL.Path, "/hetzner/v1/"):
		s.plain(w, r, "/hetzner/v1/userdata", "/hetzner/v1/metadata/instance-id", "42001337")
	default:
		http.NotFound(w, r)
	}
}

func send(w http.ResponseWriter, status int, kind, body string) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	io.WriteString(w, body)
}

func (s *service) aws(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Server", "EC2ws")
	page := func(status int) {
		title := fmt.Sprintf("%d - %s", status, http.StatusText(status))
		send(w, status, "text/html", `<?xml version="1.0" encoding="iso-8859-1"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN"
	"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="en" lang="en">
 <head><title>`+title+`</title></head><body><h1>`+title+`</h1></body></html>`)
	}
	if r.URL.Path == "/latest/api/token" {
		ttl, err := strconv.Atoi(r.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds"))
		switch {
		case r.Method != http.MethodPut:
			page(http.StatusMethodNotAllowed)
		case r.Header.Get("X-Forwarded-For") != "":
			page(http.StatusForbidden)
		case err != nil || ttl < 1 || ttl > 21600:
			page(http.StatusBadRequest)
		default:
			h.Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", strconv.Itoa(ttl))
			send(w, http.StatusOK, "text/plain", awsToken)
		}
		return
	}
	h.Set("Accept-Ranges", "none")
	h.Set("Last-Modified", "Mon, 23 Nov 2026 09:14:02 GMT")
	switch {
	case r.Header.Get("X-Aws-Ec2-Metadata-Token") != awsToken:
		page(http.StatusUnauthorized)
	case r.URL.Path == "/latest/meta-data/instance-id":
		send(w, http.StatusOK, "text/plain", "i-0af01c0123456789a")
	case r.URL.Path == "/latest/user-data" && s.userData != nil:
		send(w, http.StatusOK, "application/octet-stream", string(s.userData))
	default:
		page(http.StatusNotFound)
	}
}

func (s *service) gcp(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Server", "Metadata Server for VM")
	h.Set("X-XSS-Protection", "0")
	h.Set("X-Frame-Options", "SAMEORIGIN")
	page := func(status int) {
		send(w, status, "text/html; charset=UTF-8", fmt.Sprintf("<!DOCTYPE html>\n<html lang=en>\n  <title>Error %d (%s)!!1</title>\n</html>\n", status, http.StatusText(status)))
	}
	if r.Header.Get("Metadata-Flavor") != "Google" || r.Header.Get("X-Forwarded-For") != "" {
		page(http.StatusForbidden)
		return
	}
	h.Set("Metadata-Flavor", "Google")
	switch {
	case r.URL.Path == "/computeMetadata/v1/instance/id":
		h.Set("ETag", "8ad6cdb3d2ad4b04")
		send(w, http.StatusOK, "application/text", "4520031799277581759")
	case r.URL.Path == "/computeMetadata/v1/instance/attributes/user-data" && s.userData != nil:
		h.Set("ETag", "8ad6cdb3d2ad4b04")
		send(w, http.StatusOK, "application/text", string(s.userData))
	default:
		page(http.StatusNotFound)
	}
}

func (s *service) azure(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Server", "IMDS/150.870.65.1854")
	wrong := func(status int, text string) {
		send(w, status, "application/json; charset=utf-8", `{"error":"`+text+`"}`)
	}
	q := r.URL.Query()
	switch {
	case r.Header.Get("Metadata") != "true":
		wrong(http.StatusBadRequest, "Bad request. Required metadata header not specified")
	case r.Header.Get("X-Forwarded-For") != "":
		wrong(http.StatusBadRequest, "Bad request. X-Forwarded-For header not allowed")
	case q.Get("api-version") != "2021-01-01" || q.Get("format") != "text":
		wrong(http.StatusBadRequest, "Bad request. api-version was not specified in the request")
	case r.URL.Path == "/metadata/instance/compute/vmId":
		send(w, http.StatusOK, "text/plain; charset=utf-8", "13f56399-bd52-4150-9748-7190aae1ff21")
	case r.URL.Path == "/metadata/instance/compute/userData":
		send(w, http.StatusOK, "text/plain; charset=utf-8", base64.StdEncoding.EncodeToString(s.userData))
	default:
		wrong(http.StatusNotFound, "Not found")
	}
}

func (s *service) plain(w http.ResponseWriter, r *http.Request, userData, id, value string) {
	switch {
	case r.URL.Path == id:
		send(w, http.StatusOK, "text/plain; charset=utf-8", value)
	case r.URL.Path == userData && s.userData != nil:
		send(w, http.StatusOK, "text/plain; charset=utf-8", string(s.userData))
	default:
		send(w, http.StatusNotFound, "text/plain; charset=utf-8", "not found")
	}
}

// serve runs the service at the clouds' address until the test ends.
func (s *service) serve(t *testing.T) {
	t.Helper()
	server := &http.Server{Handler: s}
	l := listen(t)
	done := make(chan struct{})
	go func() {
		server.Serve(l)
		close(done)
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
}

// requests returns what was asked so far.
func (s *service) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// serveRaw gives each connection, once its request is read, to f.
func serveRaw(t *testing.T, f func(c net.Conn, request string)) {
	t.Helper()
	l := listen(t)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				buf := make([]byte, 4<<10)
				n, err := c.Read(buf)
				if err == nil {
					f(c, string(buf[:n]))
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		all.Wait()
	})
}
