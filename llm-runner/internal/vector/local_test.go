package vector_test

import (
	"testing"

	"home.arpa/lab/llm-runner/internal/vector"
	"home.arpa/lab/llm-runner/internal/vector/storetest"
)

func TestLocalKeepsTheContractOfStores(t *testing.T) {
	storetest.Run(t, func(t *testing.T) func() vector.Store {
		dir := t.TempDir()
		return func() vector.Store { return vector.NewLocal(dir) }
	})
}
