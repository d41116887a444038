// Package runtime gives the memory that arguments and answers are passed in.
package runtime

import (
	"runtime"
	"unsafe"
)

// Allocate gives memory that stays where it is until the pinner lets go of it.
func Allocate(pinner *runtime.Pinner, size, align uintptr) unsafe.Pointer {
	if size == 0 {
		return nil
	}
	// Aligned for everything the interface knows.
	memory := unsafe.Pointer(unsafe.SliceData(make([]uint64, (size+7)/8)))
	pinner.Pin(memory)
	return memory
}

// What the router passed for the present call.
var arguments runtime.Pinner

// Unpin lets go of it, once it has been read.
func Unpin() {
	arguments.Unpin()
}

var started = false

func init() {
	started = true
}

//go:linkname sbrk runtime.sbrk
func sbrk(n uintptr) unsafe.Pointer

// The router asks for memory through this, possibly before Go's runtime has started.
//
//go:wasmexport cabi_realloc
func cabiRealloc(old unsafe.Pointer, oldSize, align, size uintptr) unsafe.Pointer {
	if old != nil || oldSize != 0 {
		panic("the interface never makes anything larger")
	}
	if started {
		return Allocate(&arguments, size, align)
	}
	room := uintptr(sbrk(size + align))
	return unsafe.Pointer((room + align - 1) &^ (align - 1))
}
