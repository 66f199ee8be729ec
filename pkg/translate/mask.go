package translate

import (
	"regexp"
	"strings"
)

// What secrets look like in the output of programs.
var (
	tokenForm    = regexp.MustCompile(`\b[a-z0-9]{6}\.[a-z0-9]{16}\b`)                                                          // bootstrap token
	keyForm      = regexp.MustCompile(`\b[0-9a-f]{64}\b`)                                                                       // certificate key; digests, too
	webTokenForm = regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(\.[A-Za-z0-9_-]*)?`)                           // of a service account
	userForm     = regexp.MustCompile(`://[^/\s"'<>]*@`)                                                                        // user and password of a URL
	privateForm  = regexp.MustCompile(`(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)`)   // PEM
	encodedForm  = regexp.MustCompile(`LS0tLS1CRUdJTiB[A-Za-z0-9+/]+=*`)                                                        // PEM in base64
	bearerForm   = regexp.MustCompile(`(?i)\b(bearer|basic) +[A-Za-z0-9+/=._~-]{8,}`)                                           // HTTP
	secretForm   = regexp.MustCompile(`(?i)\b(password|passwd|token|secret)([=:] *)\S+`)                                        // name and value
	kubeDataForm = regexp.MustCompile(`(?i)\b(client-key-data|token-secret|certificateKey|certificate-key)("?[=:] *|\s+)"?\S+`) // kubeconfig, Secret, kubeadm

)

// encodedPublic is "-----BEGIN CERTIFICATE" in base64.
const encodedPublic = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS"

// Mask hides what looks like a secret: bootstrap and service account tokens,
// certificate keys, private keys (PEM, or that in base64 as in a kubeconfig),
// passwords, and the user of a URL.
func Mask(s string) string {
	const stars = "***"
	s = privateForm.ReplaceAllString(s, stars)
	s = encodedForm.ReplaceAllStringFunc(s, func(pem string) string {
		if strings.HasPrefix(pem, encodedPublic) {
			return pem
		}
		return stars
	})
	s = webTokenForm.ReplaceAllString(s, stars)
	s = tokenForm.ReplaceAllString(s, stars)
	s = keyForm.ReplaceAllString(s, stars)
	s = userForm.ReplaceAllString(s, "://"+stars+"@")
	s = bearerForm.ReplaceAllString(s, "$1 "+stars)
	s = kubeDataForm.ReplaceAllString(s, "$1$2"+stars)
	return secretForm.ReplaceAllString(s, "$1$2"+stars)
}
