package embed

import (
	"encoding/binary"
	"math"
)

// Vectors are kept as 16-bit floats (IEEE 754 binary16): half the room, and off by at most 1/2048 of each number, a tenth of
// what the quantised models of Ollama are off by. What is used is always what would be read back, so that a vector from the
// cache and a new one are the same.

// packed returns v as 16-bit floats, little-endian. All of v lie between -65504 and 65504.
func packed(v []float32) []byte {
	b := make([]byte, 0, 2*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint16(b, half(x))
	}
	return b
}

// unpacked reads what packed wrote; nil where b is no list of 16-bit floats.
func unpacked(b []byte) []float32 {
	if len(b)%2 != 0 {
		return nil
	}
	v := make([]float32, len(b)/2)
	for i := range v {
		v[i] = whole(binary.LittleEndian.Uint16(b[2*i:]))
	}
	return v
}

// half rounds x to the nearest 16-bit float, halves to the even one.
func half(x float32) uint16 {
	b := math.Float32bits(x)
	sign := uint16(b >> 16 & 0x8000)
	abs := math.Float32frombits(b &^ (1 << 31))
	if abs < 1.0/(1<<14) { // below the normal numbers the steps are even
		return sign | uint16(math.RoundToEven(float64(abs)*(1<<24)))
	}
	m := b &^ (1 << 31)
	m += 0xfff + m>>13&1                       // round to even at the 13th bit; a carry goes into the exponent, as it should
	return sign | uint16((m>>13)-(127-15)<<10) // the exponent counts from 15 instead of 127
}

// whole is the number that h stands for.
func whole(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exponent, mantissa := uint32(h>>10&0x1f), uint32(h&0x3ff)
	if exponent == 0 {
		return math.Float32frombits(sign | math.Float32bits(float32(mantissa)/(1<<24)))
	}
	return math.Float32frombits(sign | (exponent+127-15)<<23 | mantissa<<13)
}
