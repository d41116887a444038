package main

// The rules themselves, pure: the same view, settings and heat give the same answer.

import (
	"fmt"
	"math"
	"sort"

	"policy/gen/routing"
	"policy/gen/types"
)

const (
	// An older temperature says nothing about now.
	freshMs = 10_000
	// What a recent failure counts as, so that an instance that fails fast does not look fast.
	failureMs = 5_000
	// Until the next look, when there is nothing better to wait for.
	lookAgainMs = 1_000
)

// score gives points and why. A class is 100 points, front more than any class, and a client's number less than a class.
func score(job types.Job) (float64, string) {
	points, reason := 100.0, "standard"
	switch job.Class {
	case types.JobClassInteractive:
		points, reason = 200, "interactive"
	case types.JobClassBatch:
		points, reason = 0, "batch"
	}
	number := job.Number.SomeOr(0)
	if !math.IsNaN(number) && !math.IsInf(number, 0) {
		points += min(40, max(-40, -number))
	}
	if job.Front {
		return points + 1_000, "front of the queue"
	}
	return points, reason
}

// Heat is the set of instances that are too hot. Two thresholds, so that a card at one of them does not flap.
type Heat map[uint32]bool

func (h Heat) note(candidates []types.Candidate, settings *Settings) {
	for i := range candidates {
		celsius, known := temperature(&candidates[i])
		switch {
		case !known: // As it was.
		case celsius >= settings.HotC:
			h[candidates[i].Instance] = true
		case celsius <= settings.CoolC:
			delete(h, candidates[i].Instance)
		}
	}
}

func temperature(candidate *types.Candidate) (float64, bool) {
	fresh := candidate.ReadingAgeMs.SomeOr(math.MaxUint32) <= freshMs
	if !fresh || candidate.TemperatureC.IsNone() {
		return 0, false
	}
	return float64(candidate.TemperatureC.Some()), true
}

func decide(job types.Job, candidates []types.Candidate, heat Heat, settings *Settings) routing.RouteDecision {
	ends := make([]uint64, len(candidates))
	free := make([]uint32, 0, len(candidates))
	busy, busyEnd, freeIn := false, uint64(0), uint32(0)
	for i := range candidates {
		candidate := &candidates[i]
		ends[i] = end(&job, candidate, settings)
		switch {
		case heat[candidate.Instance]:
		case candidate.FreeSlots > 0:
			free = append(free, uint32(i))
		case job.Models > 0 && hasAll(&job, candidate) && candidate.FreeInMs.IsSome():
			in := candidate.FreeInMs.Some()
			if !busy || ends[i] < busyEnd || (ends[i] == busyEnd && in < freeIn) {
				busy, busyEnd, freeIn = true, ends[i], in
			}
		}
	}
	if len(free) == 0 {
		return withoutRoom(&job, candidates, settings)
	}
	sort.SliceStable(free, func(a, b int) bool {
		a, b = int(free[a]), int(free[b])
		if ends[a] != ends[b] {
			return ends[a] < ends[b]
		}
		return jobs(&candidates[a]) < jobs(&candidates[b])
	})
	best := free[0]
	patient := uint64(job.WaitedMs)+uint64(freeIn) <= uint64(settings.MaxExtraWaitMs)
	if busy && busyEnd < ends[best] && patient {
		return hold(max(freeIn, 50), fmt.Sprintf("models are loaded where a slot is free in %d ms", freeIn))
	}
	return ranked(free, reason(&job, &candidates[best]))
}

// withoutRoom answers when nobody cool has room: a hot card is better than no card at all, but only after a while.
func withoutRoom(job *types.Job, candidates []types.Candidate, settings *Settings) routing.RouteDecision {
	var hot []uint32
	for i := range candidates {
		if candidates[i].FreeSlots > 0 {
			hot = append(hot, uint32(i))
		}
	}
	if len(hot) == 0 {
		return hold(lookAgainMs, "no instance has room")
	}
	if uint64(job.WaitedMs) < uint64(settings.MaxExtraWaitMs) {
		return hold(lookAgainMs, "free instances are cooling down")
	}
	sort.SliceStable(hot, func(a, b int) bool {
		first, _ := temperature(&candidates[hot[a]])
		second, _ := temperature(&candidates[hot[b]])
		return first < second
	})
	return ranked(hot, "no cool instance in time")
}

// end is the predicted time until the job would be done there.
func end(job *types.Job, candidate *types.Candidate, settings *Settings) uint64 {
	var wait, load uint64
	if candidate.FreeSlots == 0 {
		wait = uint64(candidate.FreeInMs.SomeOr(0))
	}
	if !hasAll(job, candidate) {
		load = uint64(settings.AssumedLoadMs)
		if candidate.LoadMs.IsSome() {
			load = uint64(candidate.LoadMs.Some())
		}
	}
	run := candidate.RunMs.SomeOr(job.RunMs.SomeOr(0))
	return wait + load + uint64(run) + failureMs*uint64(candidate.Failures)
}

func hasAll(job *types.Job, candidate *types.Candidate) bool {
	return candidate.ModelsResident >= job.Models
}

func jobs(candidate *types.Candidate) uint64 {
	return uint64(candidate.Running) + uint64(candidate.Pending)
}

func reason(job *types.Job, candidate *types.Candidate) string {
	switch {
	case job.Models == 0:
		return "no models needed"
	case hasAll(job, candidate):
		return "models loaded"
	}
	return fmt.Sprintf("%d of %d models loaded", candidate.ModelsResident, job.Models)
}

func ranked(rows []uint32, reason string) routing.RouteDecision {
	return routing.RouteDecision{Answer: routing.MakeRouteAnswerRanked(rows), Reason: reason}
}

func hold(ms uint32, reason string) routing.RouteDecision {
	return routing.RouteDecision{Answer: routing.MakeRouteAnswerHold(ms), Reason: reason}
}
