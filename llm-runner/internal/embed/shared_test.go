//go:build prove

package embed_test

import (
	"testing"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/test/postgrestest"
)

// TestOnPostgres runs the tests of the cache where the database is PostgreSQL.
func TestOnPostgres(t *testing.T) {
	server, sqlite := postgrestest.Start(t), database
	defer func() { database = sqlite }()
	database = func(t *testing.T) *db.DB {
		t.Helper()
		d, err := db.OpenPostgres(t.Context(), server.New())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return d
	}
	t.Run("twice", TestNothingIsEmbeddedTwice)
	t.Run("unused", TestWhatIsNotUsedIsRemovedFromTheCache)
	t.Run("long", TestATextThatIsTooLongIsCutAndSaysSo)
}
