// Package wit_types has the shapes of the interface that Go has no own for.
package wit_types

// Option is a value that may be unknown. Its zero value is.
type Option[T any] struct {
	known bool
	value T
}

func None[T any]() Option[T]        { return Option[T]{} }
func Some[T any](value T) Option[T] { return Option[T]{known: true, value: value} }

func (o Option[T]) IsSome() bool { return o.known }
func (o Option[T]) IsNone() bool { return !o.known }

// Some is the value; asking for one that is not known is a mistake.
func (o Option[T]) Some() T {
	if !o.known {
		panic("not known")
	}
	return o.value
}

// SomeOr is the value, or otherwise what is given.
func (o Option[T]) SomeOr(otherwise T) T {
	if o.known {
		return o.value
	}
	return otherwise
}

const (
	OptionNone = 0
	OptionSome = 1
	ResultOk   = 0
	ResultErr  = 1
)

// Tag is how the interface says it.
func (o Option[T]) Tag() uint8 {
	if o.known {
		return OptionSome
	}
	return OptionNone
}

// Result is a value or an error.
type Result[T any, E any] struct {
	failed bool
	value  T
	err    E
}

func Ok[T any, E any](value T) Result[T, E] { return Result[T, E]{value: value} }
func Err[T any, E any](err E) Result[T, E]  { return Result[T, E]{failed: true, err: err} }

func (r Result[T, E]) IsOk() bool  { return !r.failed }
func (r Result[T, E]) IsErr() bool { return r.failed }

func (r Result[T, E]) Tag() uint8 {
	if r.failed {
		return ResultErr
	}
	return ResultOk
}

// Ok is the value; asking for that of an error is a mistake.
func (r Result[T, E]) Ok() T {
	if r.failed {
		panic("an error")
	}
	return r.value
}

// Err is the error; asking for that of a success is a mistake.
func (r Result[T, E]) Err() E {
	if !r.failed {
		panic("not an error")
	}
	return r.err
}

// Unit is nothing.
type Unit struct{}
