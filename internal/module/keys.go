package module

// The annotations of a module's OCI image manifest. Who signs the manifest signs them.
const (
	// AnnotationSeal holds the seal: the fs-verity digest (64 lower-case hexadecimal digits;
	// SHA-256, 4096-byte blocks) of the version 1 composefs image of the module's canonical
	// tree. The name is the sealing specification's of composefs-rs: all layers merged, EROFS
	// format 1, digest algorithm fsverity-sha256-12.
	AnnotationSeal = "composefs.merged.erofs.v1.fsverity-sha256-12"
	// AnnotationName holds the module's name.
	AnnotationName = "io.powernode.module.name"
	// AnnotationVersion holds the module's version; the key is the OCI image specification's.
	AnnotationVersion = "org.opencontainers.image.version"
)

// LabelManifest is the label of the OCI image config that holds the text of manifest.yaml.
const LabelManifest = "io.powernode.module.manifest"

// ModulesDir is the directory of a module's tree, without a leading slash, below which each
// module has one of its own, named like itself.
const ModulesDir = "usr/lib/powernode/modules"

// ManifestPath returns the path of manifest.yaml in the tree of the module of that name, without
// a leading slash. The name must have passed CheckName.
func ManifestPath(name string) string { return ModulesDir + "/" + name + "/manifest.yaml" }
