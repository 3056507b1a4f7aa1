package ociimage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/layer"
)

// Resolve finds the image ref, for arch if that is not empty.
func (c *Client) Resolve(ctx context.Context, ref Reference, arch string) (*Image, error) {
	doc, err := c.find(ctx, ref)
	if err != nil {
		return nil, err
	}
	image, err := resolve(ctx, c, ref.Repository, doc, arch)
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", ref, err)
	}
	return image, nil
}

// find reads the manifest or index that ref names.
func (c *Client) find(ctx context.Context, ref Reference) ([]byte, error) {
	switch {
	case ref.Digest != "":
		return c.document(ctx, ref.Repository, ref.Digest)
	case ref.Tag != "":
		return c.tagged(ctx, ref.Repository, ref.Tag)
	}
	return nil, fault.New(fault.Refuse, fault.Input, "add :tag or @sha256:<digest>", "image reference %q says no version", ref.Repository)
}

// document reads a manifest or index by its digest.
func (c *Client) document(ctx context.Context, repository string, d digest.Digest) ([]byte, error) {
	if !validDigest(d) {
		return nil, fault.New(fault.Refuse, fault.Input, "write it as sha256: and 64 hexadecimal digits", "digest %.100q is not valid", d)
	}
	b, err := c.manifest(ctx, repository, string(d))
	if err != nil {
		return nil, err
	}
	if got := digest.FromBytes(b); got != d {
		return nil, fault.New(fault.Refuse, fault.Verify, "pull it again; if that gives the same, the registry's copy is damaged",
			"fetch manifest %s@%s: the registry sent %s", repository, d, got)
	}
	return b, nil
}

// tagged reads the manifest or index that a tag names now.
func (c *Client) tagged(ctx context.Context, repository, tag string) ([]byte, error) {
	return c.manifest(ctx, repository, tag)
}

func (c *Client) manifest(ctx context.Context, repository, reference string) ([]byte, error) {
	r, err := c.repository(repository)
	if err != nil {
		return nil, err
	}
	doing := "fetch manifest " + repository + at(reference)
	resp, err := c.request(ctx, c.auth, r, "manifests/"+reference, http.Header{"Accept": manifestTypes})
	if err != nil {
		return nil, classify(err, r.Reference.Registry, doing)
	}
	defer resp.Body.Close() //nolint:errcheck // only read from
	if resp.StatusCode != http.StatusOK {
		return nil, classify(answerError(resp), r.Reference.Registry, doing)
	}
	b, err := readBounded(resp.Body, documentMax)
	if err != nil {
		return nil, classify(err, r.Reference.Registry, doing)
	}
	return b, nil
}

// manifestTypes is what a registry is asked for. Others have no place here.
var manifestTypes = []string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, dockerManifest, dockerManifestList}

// request sends a GET below the repository's part of the distribution API.
func (c *Client) request(ctx context.Context, client *auth.Client, r *remote.Repository, path string, header http.Header) (*http.Response, error) {
	scheme := "https"
	if r.PlainHTTP {
		scheme = "http"
	}
	ctx = auth.AppendRepositoryScope(ctx, r.Reference, auth.ActionPull)
	url := scheme + "://" + r.Reference.Host() + "/v2/" + r.Reference.Repository + "/" + path
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	maps.Copy(req.Header, header)
	return client.Do(req)
}

func at(reference string) string {
	if strings.Contains(reference, ":") {
		return "@" + reference
	}
	return ":" + reference
}

// blob reads a small blob.
func (c *Client) blob(ctx context.Context, repository string, d ocispec.Descriptor, limit int64) ([]byte, error) {
	if err := checkDescriptor(d, limit); err != nil {
		return nil, fault.New(fault.Refuse, fault.Verify, "build and publish the module again", "fetch blob of %s: %w", repository, err)
	}
	r, err := c.repository(repository)
	if err != nil {
		return nil, err
	}
	body := c.newDownload(ctx, r, d)
	defer body.Close() //nolint:errcheck // only read from
	return readBlob(body, repository, d)
}

// readBlob reads all of a small blob and checks it.
func readBlob(r io.Reader, where string, d ocispec.Descriptor) ([]byte, error) {
	b, err := readBounded(r, d.Size)
	if err != nil {
		return nil, fmt.Errorf("read blob %s of %s: %w", d.Digest, where, err)
	}
	if got := digest.FromBytes(b); int64(len(b)) != d.Size || got != d.Digest {
		return nil, fault.New(fault.Refuse, fault.Verify, "pull it again; if that gives the same, that copy is damaged",
			"read blob %s of %s: %d of %d bytes came, and are %s", d.Digest, where, len(b), d.Size, got)
	}
	return b, nil
}

func readBounded(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fault.New(fault.Refuse, fault.Verify, "", "it is larger than %d bytes", limit)
	}
	return b, nil
}

func (c *Client) openLayer(ctx context.Context, image *Image, d layer.Descriptor, offset int64) (io.ReadCloser, error) {
	r, err := c.repository(image.Repository)
	if err != nil {
		return nil, err
	}
	download := c.newDownload(ctx, r, ocispec.Descriptor{Digest: d.Digest, Size: d.Size})
	download.offset = offset
	return download, nil
}

func (*Client) resumable() bool { return true }

// get asks for a blob's bytes from offset to the end. Other answers than those bytes are errors.
func (c *Client) get(ctx context.Context, r *remote.Repository, d ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	header := http.Header{}
	if offset > 0 {
		header.Set("Range", "bytes="+strconv.FormatInt(offset, 10)+"-")
	}
	resp, err := c.request(ctx, c.once, r, "blobs/"+string(d.Digest), header)
	if err != nil {
		return nil, err
	}
	if err := checkAnswer(resp, d, offset); err != nil {
		return nil, errors.Join(err, resp.Body.Close())
	}
	if resp.StatusCode == http.StatusOK && offset > 0 {
		// The registry knows no ranges and sends it all.
		if _, err := io.CopyN(io.Discard, resp.Body, offset); err != nil {
			return nil, errors.Join(err, resp.Body.Close())
		}
	}
	return resp.Body, nil
}

// checkAnswer checks that an answer's headers agree with what was asked for.
func checkAnswer(resp *http.Response, d ocispec.Descriptor, offset int64) error {
	wrong := func(format string, args ...any) error {
		return fault.New(fault.Refuse, fault.Verify, "if it stays like that, the registry's copy is damaged", format, args...)
	}
	want := d.Size
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusPartialContent:
		var ok bool
		if want, ok = rangeLength(resp.Header.Get("Content-Range"), offset, d.Size); !ok {
			return wrong("the registry answered with the range %.100q, not with the bytes from %d of %d", resp.Header.Get("Content-Range"), offset, d.Size)
		}
	case http.StatusRequestedRangeNotSatisfiable:
		return wrong("the registry has fewer than the manifest's %d bytes", d.Size)
	default:
		return answerError(resp)
	}
	if resp.ContentLength >= 0 && resp.ContentLength != want {
		return wrong("the registry sends %d bytes where the manifest says %d", resp.ContentLength, want)
	}
	return nil
}

// rangeLength reads a Content-Range (RFC 9110 section 14.4), "bytes 5-9/10": it must begin at
// offset and may end before the blob does.
func rangeLength(header string, offset, size int64) (length int64, ok bool) {
	spec, ok := strings.CutPrefix(header, "bytes ")
	span, total, ok2 := strings.Cut(spec, "/")
	first, last, ok3 := strings.Cut(span, "-")
	from, err := strconv.ParseInt(first, 10, 64)
	to, err2 := strconv.ParseInt(last, 10, 64)
	if !ok || !ok2 || !ok3 || err != nil || err2 != nil {
		return 0, false
	}
	return to - from + 1, from == offset && to >= from && to < size &&
		(total == "*" || total == strconv.FormatInt(size, 10))
}
