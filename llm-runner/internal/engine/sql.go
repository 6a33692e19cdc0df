package engine

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
)

// identity returns the name of this data directory's executor, made at the first start.
func identity(ctx context.Context, handle *sql.DB) (name string, err error) {
	err = handle.QueryRowContext(ctx, `SELECT executor FROM engine_identity`).Scan(&name)
	if errors.Is(err, sql.ErrNoRows) {
		name = rand.Text()
		_, err = handle.ExecContext(ctx, `INSERT INTO engine_identity (executor) VALUES (?)`, name)
	}
	if err != nil {
		return "", fmt.Errorf("read engine identity: %w", err)
	}
	return name, nil
}
