// Package signature decides whether a module's image manifest, or a plain file, was signed by
// somebody whom the local trust policy trusts. It is the only package that judges signatures.
//
// It promises:
//   - Nothing is accepted by default. A Verifier doesn't construct without a policy that has
//     rules, and an image that no rule covers is refused.
//   - One rule decides: the first one in the file that covers the image and the module. No later
//     rule is tried when it says no.
//   - A Verified exists only if every check that its kind of signature needs has run and passed;
//     they are counted at the end, against a list.
//   - No network, ever: whatever is needed is in the policy and in the bundle.
//   - Every signature takes one path. The older form of cosign's is turned into a Sigstore bundle
//     first, so that it can't be checked less strictly than the newer one.
//   - A refusal names the check that said no, and what a person can do.
//
// It trusts the policy, the files shipped beside it, the clock that it is given (for keys with a
// validity window and no trusted time in the bundle) and the sigstore-go library for the
// cryptography. It trusts neither the registry nor the platform: the manifest, the bundles and
// their annotations may be hostile; they are bounded in number and size.
//
// A signature of an image binds its digest and nothing else, in particular no name. What makes
// "nginx 1.28" mean one thing is that the signed manifest itself carries the module's name and
// version in its annotations, which VerifyManifest compares with what was asked for.
//
// # The trust policy
//
// trust.yaml is UTF-8 YAML, at most 256 KiB, one document without anchors and aliases; a key that
// isn't known is an error. docs/trust.md describes it for operators.
//
//	schema_version: 1               # required
//	integrity: enforced             # the least integrity level accepted: enforced or checked (the default)
//	node_key: tpm                   # where the node's own key lives: file (the default), tpm or tpm-if-present
//	rules:                          # 1 to 64, tried in order
//	  - name: site                  # required, unique: letters, digits and hyphens
//	    images:                     # required, 1 to 64: repository names, host/path; * matches
//	      - "registry.example.org/powernode/*"   # within one component, ** any number of them
//	    modules: ["nginx*"]         # module names; without it, every module of these images
//	    keys:                       # keys, identities or both; any one of them is enough
//	      - name: release-2026      # for messages; else the file's name or the key's ID
//	        file: keys/release.pub  # PEM (PKIX), relative to trust.yaml; or inline as pem: |
//	        not_before: 2026-01-01T00:00:00Z     # RFC 3339; optional
//	        not_after: 2027-01-01T00:00:00Z
//	    identities:
//	      - issuer: https://token.actions.githubusercontent.com   # exact
//	        subject: https://github.com/o/r/.github/workflows/x.yml@refs/heads/main  # exact, or
//	        subject_regexp: https://github\.com/o/r/.*            # all of it must match
//	    trusted_root: trusted_root.json  # required with identities
package signature
