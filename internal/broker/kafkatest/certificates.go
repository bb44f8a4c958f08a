package kafkatest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// certificates are the PEM files of one cluster: an authority of its own, what
// it signed for the brokers, and what it signed for clients.
type certificates struct {
	ca         string
	server     string // key and certificate in one file, as Kafka wants them
	clientCert string
	clientKey  string
}

// makeCertificates writes the files into folder.
func makeCertificates(folder string) (*certificates, error) {
	c := &certificates{
		ca:         filepath.Join(folder, "ca.pem"),
		server:     filepath.Join(folder, "server.pem"),
		clientCert: filepath.Join(folder, "client.pem"),
		clientKey:  filepath.Join(folder, "client.key.pem"),
	}
	root := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "kafkatest authority"},
		KeyUsage:              x509.KeyUsageCertSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	rootKey, rootPEM, _, err := sign(root, nil, nil)
	if err != nil {
		return nil, err
	}
	_, serverPEM, serverKeyPEM, err := sign(&x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: ServerName},
		DNSNames:     []string{ServerName, "localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, root, rootKey)
	if err != nil {
		return nil, err
	}
	_, clientPEM, clientKeyPEM, err := sign(&x509.Certificate{
		SerialNumber: big.NewInt(3),
		Subject:      pkix.Name{CommonName: User},
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, root, rootKey)
	if err != nil {
		return nil, err
	}
	for file, content := range map[string][]byte{
		c.ca:         rootPEM,
		c.server:     append(serverKeyPEM, serverPEM...),
		c.clientCert: clientPEM,
		c.clientKey:  clientKeyPEM,
	} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			return nil, fmt.Errorf("write a certificate: %w", err)
		}
	}
	return c, nil
}

// sign makes a key and a certificate for it. Without a parent the certificate
// signs itself.
func sign(template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (key *ecdsa.PrivateKey, certPEM, keyPEM []byte, err error) {
	key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("make a key: %w", err)
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	// An hour back: brokers and tests share a clock, its corrections do not matter.
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().Add(24 * time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("make a certificate for %s: %w", template.Subject.CommonName, err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("encode a key: %w", err)
	}
	return key,
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
		nil
}
