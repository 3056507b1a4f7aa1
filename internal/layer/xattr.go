package layer

import (
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/tree"
)

// paxXattr is the prefix of the PAX records in which star, GNU tar and every OCI tool keep
// extended attributes.
const paxXattr = "SCHILY.xattr."

// AllowedXattr reports whether a module may carry the extended attribute of that name:
// security.capability, security.selinux, the POSIX ACLs (system.posix_acl_access and
// system.posix_acl_default) and user.*, except overlayfs's own below user.overlay.
//
// Everything else is refused. trusted.* is where overlayfs keeps redirects, metacopy digests and
// opaque marks, with which one module could show another's files as its own; security.ima and
// security.evm are bound to the machine that wrote them; other namespaces have no meaning here.
func AllowedXattr(name string) bool {
	switch name {
	case "security.capability", "security.selinux", "system.posix_acl_access", "system.posix_acl_default":
		return true
	}
	rest, ok := strings.CutPrefix(name, "user.")
	return ok && rest != "" && rest != "overlay" && !strings.HasPrefix(rest, "overlay.")
}

// xattrs picks the extended attributes out of an entry's PAX records, sorted by name. reason is ""
// unless a record must not be there.
func xattrs(records map[string]string) (attrs []tree.Xattr, reason string) {
	total := 0
	for _, key := range slices.Sorted(maps.Keys(records)) {
		value := records[key]
		name, ok := strings.CutPrefix(key, paxXattr)
		if !ok {
			if reason := unkept(key, records); reason != "" {
				return nil, reason
			}
			continue
		}
		if reason := checkXattr(name, len(value)); reason != "" {
			return nil, reason
		}
		total += len(name) + len(value)
		attrs = append(attrs, tree.Xattr{Name: name, Value: []byte(value)})
	}
	if reason := checkXattrs(len(attrs), total); reason != "" {
		return nil, reason
	}
	slices.SortFunc(attrs, func(a, b tree.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return attrs, ""
}

func checkXattr(name string, size int) (reason string) {
	switch {
	case len(name) > xattrNameMax:
		return "an extended attribute's name is longer than 255 bytes"
	case strings.ContainsRune(name, 0):
		return "an extended attribute's name contains a NUL"
	case !AllowedXattr(name):
		return "a module can't carry the extended attribute " + quoteShort(name)
	case size > xattrValueMax:
		return "the extended attribute " + quoteShort(name) + " is larger than 65535 bytes"
	}
	return ""
}

func checkXattrs(count, total int) (reason string) {
	switch {
	case count > xattrCountMax:
		return "it has more than 256 extended attributes"
	case total > xattrTotalMax:
		return "its extended attributes are larger than 128 KiB"
	}
	return ""
}

// unkept says why a PAX record that is no SCHILY.xattr record can't be passed over: it carries
// access control or contents in a form that isn't read here, and the tree would differ without it.
func unkept(key string, records map[string]string) (reason string) {
	switch {
	case strings.HasPrefix(key, "GNU.sparse."), key == "SCHILY.realsize":
		return "it is a sparse file; write the layer without tar's --sparse"
	case strings.HasPrefix(key, "SCHILY.acl."):
		return "it has an ACL in star's text form; write the layer with --xattrs-include=* instead of --acls"
	case strings.HasPrefix(key, "RHT.security."):
		return "it has a label in GNU tar's form; write the layer with --xattrs-include=* instead of --selinux"
	case strings.HasPrefix(key, "LIBARCHIVE.xattr."):
		// bsdtar writes each attribute in both forms, this one with the name percent-encoded.
		name, err := url.PathUnescape(strings.TrimPrefix(key, "LIBARCHIVE.xattr."))
		if _, twin := records[paxXattr+name]; err != nil || !twin {
			return "it has an extended attribute in libarchive's form only: " + quoteShort(name)
		}
	}
	return ""
}
