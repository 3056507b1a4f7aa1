package signature

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"testing"
	"time"

	ct "github.com/google/certificate-transparency-go"
	cttls "github.com/google/certificate-transparency-go/tls"
	ctx509 "github.com/google/certificate-transparency-go/x509"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"google.golang.org/protobuf/encoding/protojson"
)

// instance is a whole Sigstore in memory: a certificate authority (Fulcio) with a certificate log,
// a transparency log (Rekor) and a timestamp authority.
type instance struct {
	virtual   *ca.VirtualSigstore
	authority *root.FulcioCertificateAuthority
	issuerKey *ecdsa.PrivateKey
	ctKey     *ecdsa.PrivateKey
}

func newInstance(t testing.TB) *instance {
	t.Helper()
	in := &instance{}
	var err error
	in.virtual, err = ca.NewVirtualSigstore()
	fatal(t, err)
	rootCert, rootKey, err := ca.GenerateRootCa()
	fatal(t, err)
	intermediate, key, err := ca.GenerateFulcioIntermediate(rootCert, rootKey)
	fatal(t, err)
	in.issuerKey = key
	in.authority = &root.FulcioCertificateAuthority{
		URI: "https://fulcio.test", Root: rootCert, Intermediates: []*x509.Certificate{intermediate},
		ValidityPeriodStart: time.Now().Add(-5 * time.Hour),
	}
	in.ctKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fatal(t, err)
	return in
}

// trustedRoot returns the instance's trusted_root.json. without names what to leave out of it.
func (in *instance) trustedRoot(t testing.TB, without ...string) []byte {
	t.Helper()
	leave := map[string]bool{}
	for _, name := range without {
		leave[name] = true
	}
	period := func(l *root.TransparencyLog, id string) *root.TransparencyLog {
		raw, err := hex.DecodeString(id)
		fatal(t, err)
		l.ID, l.SignatureHashFunc = raw, crypto.SHA256
		l.ValidityPeriodStart, l.ValidityPeriodEnd = time.Now().Add(-24*time.Hour), time.Time{}
		return l
	}
	rekor, ctlogs := map[string]*root.TransparencyLog{}, map[string]*root.TransparencyLog{}
	for id, l := range in.virtual.RekorLogs() {
		rekor[id] = period(l, id)
	}
	ctID := hex.EncodeToString(keyHash(t, in.ctKey.Public()))
	ctlogs[ctID] = period(&root.TransparencyLog{BaseURL: "https://ct.test", HashFunc: crypto.SHA256, PublicKey: in.ctKey.Public()}, ctID)
	authorities, stampers := []root.CertificateAuthority{in.authority}, in.virtual.TimestampingAuthorities()
	if leave["ca"] {
		authorities = nil
	}
	if leave["ct"] {
		ctlogs = nil
	}
	if leave["rekor"] {
		rekor = nil
	}
	if leave["tsa"] {
		stampers = nil
	}
	tr, err := root.NewTrustedRoot(root.TrustedRootMediaType01, authorities, ctlogs, stampers, rekor)
	fatal(t, err)
	text, err := tr.MarshalJSON()
	fatal(t, err)
	return text
}

// how says how a keyless signature is to be made; the zero value makes a good one.
type how struct {
	subject, issuer string
	notBefore       time.Time // of the certificate, which is valid for ten minutes
	logged          time.Time
	noCT            bool      // no signed certificate timestamp in the certificate
	ctBy            *instance // another instance's certificate log
	noLog           bool
	noPromise       bool // the log gives a proof only, which has no time
	stamp           bool // a timestamp authority's token as well
	stampBy         *instance
	curve           elliptic.Curve
}

const (
	testSubject = "https://github.com/powernode/modules/.github/workflows/publish.yml@refs/heads/main"
	testIssuer  = "https://token.actions.githubusercontent.com"
)

// certificate issues a code signing certificate, the way Fulcio does.
func (in *instance) certificate(t testing.TB, h how) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	subject, issuer, notBefore, curve := h.subject, h.issuer, h.notBefore, h.curve
	if subject == "" {
		subject = testSubject
	}
	if issuer == "" {
		issuer = testIssuer
	}
	if notBefore.IsZero() {
		notBefore = time.Now().Add(-time.Minute)
	}
	if curve == nil {
		curve = elliptic.P256()
	}
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	fatal(t, err)
	san, err := url.Parse(subject)
	fatal(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), URIs: []*url.URL{san},
		NotBefore: notBefore, NotAfter: notBefore.Add(10 * time.Minute),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}, Value: []byte(issuer)}},
	}
	parent := in.authority.Intermediates[0]
	issue := func() *x509.Certificate {
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), in.issuerKey)
		fatal(t, err)
		cert, err := x509.ParseCertificate(der)
		fatal(t, err)
		return cert
	}
	if h.noCT {
		return issue(), key
	}
	log := in
	if h.ctBy != nil {
		log = h.ctBy
	}
	// The log signs the certificate as it would be without the log's own word (RFC 6962, 3.2).
	entry := ct.PreCert{IssuerKeyHash: sha256.Sum256(parent.RawSubjectPublicKeyInfo), TBSCertificate: issue().RawTBSCertificate}
	sct := ct.SignedCertificateTimestamp{SCTVersion: ct.V1, LogID: ct.LogID{KeyID: [32]byte(keyHash(t, log.ctKey.Public()))}, Timestamp: uint64(time.Now().UnixMilli())}
	input, err := ct.SerializeSCTSignatureInput(sct, ct.LogEntry{Leaf: ct.MerkleTreeLeaf{
		Version: ct.V1, LeafType: ct.TimestampedEntryLeafType,
		TimestampedEntry: &ct.TimestampedEntry{Timestamp: sct.Timestamp, EntryType: ct.PrecertLogEntryType, PrecertEntry: &entry},
	}})
	fatal(t, err)
	sig, err := cttls.CreateSignature(*log.ctKey, cttls.SHA256, input)
	fatal(t, err)
	sct.Signature = ct.DigitallySigned(sig)
	word, err := cttls.Marshal(sct)
	fatal(t, err)
	list, err := cttls.Marshal(ctx509.SignedCertificateTimestampList{SCTList: []ctx509.SerializedSCT{{Val: word}}})
	fatal(t, err)
	value, err := asn1.Marshal(list)
	fatal(t, err)
	template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: value})
	return issue(), key
}

// sign makes a bundle: around a DSSE envelope if statement is set, else over data.
func (in *instance) sign(t testing.TB, h how, data []byte, statement bool) *protobundle.Bundle {
	t.Helper()
	cert, key := in.certificate(t, h)
	certPEM := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	out := &protobundle.Bundle{MediaType: MediaTypeBundle + ".v0.3+json", VerificationMaterial: &protobundle.VerificationMaterial{
		Content: &protobundle.VerificationMaterial_Certificate{Certificate: &protocommon.X509Certificate{RawBytes: cert.Raw}},
	}}
	message := data
	if statement {
		message = pae(data)
	}
	hash := crypto.SHA256
	if h.curve == elliptic.P384() {
		hash = crypto.SHA384
	}
	digest := func(b []byte) []byte { w := hash.New(); w.Write(b); return w.Sum(nil) }
	sig, err := key.Sign(rand.Reader, digest(message), hash)
	fatal(t, err)
	var spec any
	kind := "hashedrekord"
	hashed := func(b []byte) map[string]string {
		return map[string]string{"algorithm": map[crypto.Hash]string{crypto.SHA256: "sha256", crypto.SHA384: "sha384"}[hash], "value": hex.EncodeToString(digest(b))}
	}
	if statement {
		kind = "dsse"
		out.Content = &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
			Payload: data, PayloadType: "application/vnd.in-toto+json", Signatures: []*protodsse.Signature{{Sig: sig}},
		}}
		spec = map[string]any{
			"envelopeHash": hashed(data), "payloadHash": hashed(data),
			"signatures": []any{map[string]any{"signature": sig, "verifier": []byte(certPEM)}},
		}
	} else {
		out.Content = &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
			MessageDigest: &protocommon.HashOutput{Algorithm: map[crypto.Hash]protocommon.HashAlgorithm{
				crypto.SHA256: protocommon.HashAlgorithm_SHA2_256, crypto.SHA384: protocommon.HashAlgorithm_SHA2_384,
			}[hash], Digest: digest(data)}, Signature: sig,
		}}
		spec = map[string]any{
			"data":      map[string]any{"hash": hashed(data)},
			"signature": map[string]any{"content": sig, "publicKey": map[string]any{"content": []byte(certPEM)}},
		}
	}
	if !h.noLog {
		out.VerificationMaterial.TlogEntries = []*protorekor.TransparencyLogEntry{in.log(t, h, kind, spec)}
	}
	if h.stamp || h.stampBy != nil {
		stamper := in
		if h.stampBy != nil {
			stamper = h.stampBy
		}
		token, err := stamper.virtual.TimestampResponse(sig)
		fatal(t, err)
		out.VerificationMaterial.TimestampVerificationData = &protobundle.TimestampVerificationData{
			Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{{SignedTimestamp: token}},
		}
	}
	return out
}

// log makes a transparency log entry, with the log's promise and its proof of inclusion.
func (in *instance) log(t testing.TB, h how, kind string, spec any) *protorekor.TransparencyLogEntry {
	t.Helper()
	body, err := json.Marshal(map[string]any{"apiVersion": "0.0.1", "kind": kind, "spec": spec})
	fatal(t, err)
	at := h.logged
	if at.IsZero() {
		at = time.Now()
	}
	id, err := in.virtual.RekorLogID()
	fatal(t, err)
	rawID, err := hex.DecodeString(id)
	fatal(t, err)
	entry := &protorekor.TransparencyLogEntry{
		LogId: &protocommon.LogId{KeyId: rawID}, KindVersion: &protorekor.KindVersion{Kind: kind, Version: "0.0.1"},
		IntegratedTime: at.Unix(), CanonicalizedBody: body,
	}
	proof, err := in.virtual.GetInclusionProof(body)
	fatal(t, err)
	rootHash, err := hex.DecodeString(*proof.RootHash)
	fatal(t, err)
	entry.InclusionProof = &protorekor.InclusionProof{
		LogIndex: *proof.LogIndex, TreeSize: *proof.TreeSize, RootHash: rootHash, Checkpoint: &protorekor.Checkpoint{Envelope: *proof.Checkpoint},
	}
	if !h.noPromise {
		set, err := in.virtual.RekorSignPayload(tlog.RekorPayload{Body: base64.StdEncoding.EncodeToString(body), IntegratedTime: at.Unix(), LogID: id})
		fatal(t, err)
		entry.InclusionPromise = &protorekor.InclusionPromise{SignedEntryTimestamp: set}
	}
	return entry
}

// attach returns the bundle as it hangs on an image.
func attach(t testing.TB, b *protobundle.Bundle) Bundle {
	t.Helper()
	text, err := protojson.Marshal(b)
	fatal(t, err)
	return Bundle{MediaType: b.MediaType, Data: text}
}

// older turns a bundle over a simple signing payload into cosign's older form.
func older(t testing.TB, b *protobundle.Bundle, payload []byte) Bundle {
	t.Helper()
	m := b.VerificationMaterial
	out := Bundle{MediaType: MediaTypePayload, Data: payload, Annotations: map[string]string{
		annotationSignature:   base64.StdEncoding.EncodeToString(b.GetMessageSignature().GetSignature()),
		annotationCertificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.GetCertificate().GetRawBytes()})),
	}}
	if len(m.TlogEntries) > 0 {
		e := m.TlogEntries[0]
		text, err := json.Marshal(map[string]any{
			"SignedEntryTimestamp": e.GetInclusionPromise().GetSignedEntryTimestamp(),
			"Payload": map[string]any{
				"body": e.CanonicalizedBody, "integratedTime": e.IntegratedTime, "logIndex": e.LogIndex, "logID": hex.EncodeToString(e.LogId.KeyId),
			},
		})
		fatal(t, err)
		out.Annotations[annotationRekor] = string(text)
	}
	if stamps := m.GetTimestampVerificationData().GetRfc3161Timestamps(); len(stamps) > 0 {
		text, err := json.Marshal(map[string]any{"SignedRFC3161Timestamp": stamps[0].SignedTimestamp})
		fatal(t, err)
		out.Annotations[annotationTimestamp] = string(text)
	}
	return out
}

func pae(statement []byte) []byte {
	const kind = "application/vnd.in-toto+json"
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(kind), kind, len(statement), statement)
}

func keyHash(t testing.TB, public crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	fatal(t, err)
	sum := sha256.Sum256(der)
	return sum[:]
}

func fatal(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
