package upstream

import (
	"bufio"
	"strings"
)

// Peek returns the first byte of an answer that is neither white space nor part of a byte order mark, and leaves it unread;
// what came before it is read. '{' or '[' means that the answer is JSON, whatever its Content-Type says.
func Peek(src *bufio.Reader) (byte, error) {
	for {
		b, err := src.Peek(1)
		if err != nil {
			return 0, err
		}
		if strings.IndexByte(" \t\r\n\xef\xbb\xbf", b[0]) < 0 {
			return b[0], nil
		}
		_, _ = src.Discard(1) // it is buffered
	}
}
