package mcpclient

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
)

// ParseKey reads a private key that can sign a JWT: PEM with PKCS #8, SEC 1 or PKCS #1; ECDSA on P-256, P-384 or P-521, RSA of at
// least 2048 bits, or Ed25519.
func ParseKey(text []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("is no private key in PEM: it begins with -----BEGIN PRIVATE KEY-----")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		if ec, ecErr := x509.ParseECPrivateKey(block.Bytes); ecErr == nil {
			key, err = ec, nil
		} else if old, oldErr := x509.ParsePKCS1PrivateKey(block.Bytes); oldErr == nil {
			key, err = old, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot be read as a private key, which must have no passphrase: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("is a key that cannot sign: make one with openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256")
	}
	_, _, err = algorithm(signer)
	return signer, err
}

// algorithm is how a key signs, in the words of RFC 7518 and RFC 8037.
func algorithm(key crypto.Signer) (name string, hash crypto.Hash, err error) {
	switch k := key.Public().(type) {
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return "ES256", crypto.SHA256, nil
		case elliptic.P384():
			return "ES384", crypto.SHA384, nil
		case elliptic.P521():
			return "ES512", crypto.SHA512, nil
		}
	case *rsa.PublicKey:
		if k.N.BitLen() < 2048 {
			return "", 0, fmt.Errorf("has %d bits: RSA keys need 2048", k.N.BitLen())
		}
		return "RS256", crypto.SHA256, nil
	case ed25519.PublicKey:
		return "EdDSA", 0, nil
	}
	return "", 0, errors.New("is a key that no JWT is signed with: use ECDSA on P-256, P-384 or P-521, RSA, or Ed25519")
}

// sign is a JWT (RFC 7519) in the compact form; alg is put into its header.
func sign(key crypto.Signer, header, claims map[string]any) (string, error) {
	name, hash, err := algorithm(key)
	if err != nil {
		return "", err
	}
	header["alg"] = name
	var parts [2]string
	for i, part := range []map[string]any{header, claims} {
		b, err := json.Marshal(part)
		if err != nil {
			return "", err
		}
		parts[i] = base64.RawURLEncoding.EncodeToString(b)
	}
	text := parts[0] + "." + parts[1]
	digest := []byte(text)
	if hash != 0 {
		h := hash.New()
		h.Write(digest)
		digest = h.Sum(nil)
	}
	signature, err := key.Sign(rand.Reader, digest, hash)
	if err != nil {
		return "", err
	}
	if k, ok := key.Public().(*ecdsa.PublicKey); ok { // RFC 7518, section 3.4: both numbers at full length, not ASN.1
		var pair struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(signature, &pair); err != nil {
			return "", err
		}
		size := (k.Curve.Params().BitSize + 7) / 8
		signature = append(pair.R.FillBytes(make([]byte, size)), pair.S.FillBytes(make([]byte, size))...)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

// public is the public half of an ECDSA key as a JWK (RFC 7517).
func public(key *ecdsa.PrivateKey) (map[string]any, error) {
	point, err := key.PublicKey.Bytes() // 4, X, Y
	if err != nil {
		return nil, err
	}
	size := (len(point) - 1) / 2
	return map[string]any{"kty": "EC", "crv": key.Curve.Params().Name, "x": base64.RawURLEncoding.EncodeToString(point[1 : 1+size]),
		"y": base64.RawURLEncoding.EncodeToString(point[1+size:])}, nil
}
