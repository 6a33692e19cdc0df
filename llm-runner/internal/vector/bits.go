package vector

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// A sketch is what memory holds of a vector: the signs of its dimensions after the centre of all vectors is taken away, one
// bit each, and a scale. With s the vector of signs (+1, -1), the cosine of x to a query q is estimated by
// scale * <s, q> + <centre, q>; scale = |x-c|^2 / |x-c|_1 makes the estimate right for q = x-c (RaBitQ, SIGMOD 2024, uses the
// same correction). The last term is the same for all points and left out.
//
// Embeddings of one model share a large common part (all-MiniLM: little, nomic: much). Without the centre many signs are the
// same for all points and tell nothing.

// words is how many uint64 the bits of n dimensions take.
func words(n int) int { return (n + 63) / 64 }

// sketch sets dst to the signs of x - centre and returns the scale. len(dst) == words(len(x)).
func sketch(dst []uint64, x, centre []float32) float32 {
	clear(dst)
	var sum, squares float32
	for i, v := range x {
		v -= centre[i]
		squares += v * v
		if v > 0 {
			dst[i/64] |= 1 << (i % 64)
			sum += v
		} else {
			sum -= v
		}
	}
	if sum == 0 {
		return 0 // x is the centre itself
	}
	return squares / sum
}

// differ writes how many bits each row of rows differs in from q: len(dst) rows of len(q) words each.
func differ(dst []uint16, rows, q []uint64) {
	switch len(q) {
	case 6: // 384 dimensions: MiniLM and other small ones
		q := (*[6]uint64)(q)
		for i := range dst {
			r := (*[6]uint64)(rows[i*6:])
			dst[i] = uint16(bits.OnesCount64(r[0]^q[0]) + bits.OnesCount64(r[1]^q[1]) + bits.OnesCount64(r[2]^q[2]) +
				bits.OnesCount64(r[3]^q[3]) + bits.OnesCount64(r[4]^q[4]) + bits.OnesCount64(r[5]^q[5]))
		}
	case 12: // 768: nomic-embed-text
		q := (*[12]uint64)(q)
		for i := range dst {
			r := (*[12]uint64)(rows[i*12:])
			dst[i] = uint16(bits.OnesCount64(r[0]^q[0]) + bits.OnesCount64(r[1]^q[1]) + bits.OnesCount64(r[2]^q[2]) +
				bits.OnesCount64(r[3]^q[3]) + bits.OnesCount64(r[4]^q[4]) + bits.OnesCount64(r[5]^q[5]) +
				bits.OnesCount64(r[6]^q[6]) + bits.OnesCount64(r[7]^q[7]) + bits.OnesCount64(r[8]^q[8]) +
				bits.OnesCount64(r[9]^q[9]) + bits.OnesCount64(r[10]^q[10]) + bits.OnesCount64(r[11]^q[11]))
		}
	default:
		for i := range dst {
			n := 0
			for j, w := range rows[i*len(q) : (i+1)*len(q)] {
				n += bits.OnesCount64(w ^ q[j])
			}
			dst[i] = uint16(n)
		}
	}
}

// A table answers <s, q> for the signs s in eight lookups a word: for each byte of a row, the sum for its 256 values.
type table [][256]float32

func newTable(q []float32) table {
	t := make(table, 8*words(len(q)))
	for b := range t {
		var part [8]float32
		copy(part[:], q[min(8*b, len(q)):])
		row := &t[b]
		for _, x := range part {
			row[0] -= x
		}
		for v := 1; v < 256; v++ { // v differs from v without its lowest bit in that bit alone
			row[v] = row[v&(v-1)] + 2*part[bits.TrailingZeros8(uint8(v))]
		}
	}
	return t
}

// signs returns <s, q> for the signs of one row.
func (t table) signs(row []uint64) float32 {
	var a, b float32
	for i, w := range row {
		p := (*[8][256]float32)(t[8*i:])
		a += p[0][byte(w)] + p[1][byte(w>>8)] + p[2][byte(w>>16)] + p[3][byte(w>>24)]
		b += p[4][byte(w>>32)] + p[5][byte(w>>40)] + p[6][byte(w>>48)] + p[7][byte(w>>56)]
	}
	return a + b
}

// dot returns the product of q and the little-endian floats in raw: len(raw) == 4*len(q). The order of the additions is
// fixed and products are rounded before they are added, so the same numbers give the same sum on every machine.
func dot(q []float32, raw []byte) float32 {
	var a, b, c, d float32
	for len(q) >= 4 && len(raw) >= 16 {
		a += float32(q[0] * math.Float32frombits(binary.LittleEndian.Uint32(raw)))
		b += float32(q[1] * math.Float32frombits(binary.LittleEndian.Uint32(raw[4:])))
		c += float32(q[2] * math.Float32frombits(binary.LittleEndian.Uint32(raw[8:])))
		d += float32(q[3] * math.Float32frombits(binary.LittleEndian.Uint32(raw[12:])))
		q, raw = q[4:], raw[16:]
	}
	for i, x := range q {
		a += float32(x * math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:])))
	}
	return a + b + c + d
}

// appendFloats appends v as little-endian floats.
func appendFloats(dst []byte, v []float32) []byte {
	for _, x := range v {
		dst = binary.LittleEndian.AppendUint32(dst, math.Float32bits(x))
	}
	return dst
}

// floats reads little-endian floats into dst: len(raw) == 4*len(dst).
func floats(dst []float32, raw []byte) {
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
}
