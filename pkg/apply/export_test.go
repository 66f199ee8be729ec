package apply

import (
	"crypto/rand"
	"crypto/rsa"
	"sync"
)

// One key for all tests: making one takes longer than most of them.
var sealKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, sealBits) })

// ShareSealKey spares an engine of a test the making of a key.
func (e *Engine) ShareSealKey() *Engine {
	e.sealKey = func(int) (*rsa.PrivateKey, error) { return sealKey() }
	return e
}
