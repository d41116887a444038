;; What a Go program asks of WASI, answered without a WASI.
;;
;; Go's runtime cannot be built without the imports of `wasi_snapshot_preview1`. The official adapter turns them into imports
;; of `wasi:*`, which a policy does not get, and under it a Go guest traps after some hundred calls: its garbage collector
;; reads the clock while memory is allocated for the arguments of a call, when leaving the component is forbidden
;; (wasmtime issue 14318). This adapter leaves the component for nothing:
;;
;; - the clock stands still, so `time.Now` is a constant and `time.Sleep` never ends: the router's `clock` tells the time;
;; - random bytes are constant, so maps are seeded alike every time: the router's `random` gives random numbers;
;; - there are no arguments, no environment and no files, and whatever is printed is dropped: the router's `log` writes lines;
;; - `os.Exit`, and a panic nobody recovers, end the call with a trap.
(module
  (import "env" "memory" (memory 0))

  ;; Results of WASI functions: success, bad file descriptor, function not there.
  (global $success i32 (i32.const 0))
  (global $badf i32 (i32.const 8))
  (global $nosys i32 (i32.const 52))

  (func $none (param $count i32) (param $bytes i32) (result i32)
    (i32.store (local.get $count) (i32.const 0))
    (i32.store (local.get $bytes) (i32.const 0))
    (global.get $success))
  (func (export "args_sizes_get") (param i32 i32) (result i32)
    (call $none (local.get 0) (local.get 1)))
  (func (export "environ_sizes_get") (param i32 i32) (result i32)
    (call $none (local.get 0) (local.get 1)))
  (func (export "args_get") (param i32 i32) (result i32) (global.get $success))
  (func (export "environ_get") (param i32 i32) (result i32) (global.get $success))

  ;; Noon (UTC) of 1 January 2024, in nanoseconds, whichever clock is asked.
  (func (export "clock_time_get") (param $clock i32) (param $precision i64) (param $out i32) (result i32)
    (i64.store (local.get $out) (i64.const 1704110400000000000))
    (global.get $success))
  (func (export "random_get") (param $out i32) (param $count i32) (result i32)
    (memory.fill (local.get $out) (i32.const 0x5a) (local.get $count))
    (global.get $success))

  (func (export "sched_yield") (result i32) (global.get $success))
  ;; Nothing ever happens, and waiting for it takes no time.
  (func (export "poll_oneoff") (param $in i32) (param $out i32) (param $count i32) (param $happened i32) (result i32)
    (i32.store (local.get $happened) (i32.const 0))
    (global.get $success))
  (func (export "proc_exit") (param i32) unreachable)

  ;; Takes all that is written, and keeps nothing of it.
  (func (export "fd_write") (param $fd i32) (param $vectors i32) (param $count i32) (param $written i32) (result i32)
    (local $sum i32)
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $count)))
        (local.set $sum (i32.add (local.get $sum) (i32.load offset=4 (local.get $vectors))))
        (local.set $vectors (i32.add (local.get $vectors) (i32.const 8)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $next)))
    (i32.store (local.get $written) (local.get $sum))
    (global.get $success))

  (func (export "fd_close") (param i32) (result i32) (global.get $badf))
  (func (export "fd_fdstat_get") (param i32 i32) (result i32) (global.get $badf))
  (func (export "fd_fdstat_set_flags") (param i32 i32) (result i32) (global.get $badf))
  (func (export "fd_filestat_get") (param i32 i32) (result i32) (global.get $badf))
  (func (export "fd_filestat_set_size") (param i32 i64) (result i32) (global.get $badf))
  (func (export "fd_pread") (param i32 i32 i32 i64 i32) (result i32) (global.get $badf))
  (func (export "fd_prestat_dir_name") (param i32 i32 i32) (result i32) (global.get $badf))
  (func (export "fd_prestat_get") (param i32 i32) (result i32) (global.get $badf))
  (func (export "fd_pwrite") (param i32 i32 i32 i64 i32) (result i32) (global.get $badf))
  (func (export "fd_read") (param i32 i32 i32 i32) (result i32) (global.get $badf))
  (func (export "fd_readdir") (param i32 i32 i32 i64 i32) (result i32) (global.get $badf))
  (func (export "fd_seek") (param i32 i64 i32 i32) (result i32) (global.get $badf))
  (func (export "fd_sync") (param i32) (result i32) (global.get $badf))
  (func (export "path_create_directory") (param i32 i32 i32) (result i32) (global.get $nosys))
  (func (export "path_filestat_get") (param i32 i32 i32 i32 i32) (result i32) (global.get $nosys))
  (func (export "path_filestat_set_times") (param i32 i32 i32 i32 i64 i64 i32) (result i32) (global.get $nosys))
  (func (export "path_link") (param i32 i32 i32 i32 i32 i32 i32) (result i32) (global.get $nosys))
  (func (export "path_open") (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32) (global.get $nosys))
  (func (export "path_readlink") (param i32 i32 i32 i32 i32 i32) (result i32) (global.get $nosys))
  (func (export "path_remove_directory") (param i32 i32 i32) (result i32) (global.get $nosys))
  (func (export "path_rename") (param i32 i32 i32 i32 i32 i32) (result i32) (global.get $nosys))
  (func (export "path_symlink") (param i32 i32 i32 i32 i32) (result i32) (global.get $nosys))
  (func (export "path_unlink_file") (param i32 i32 i32) (result i32) (global.get $nosys))
  (func (export "sock_accept") (param i32 i32 i32) (result i32) (global.get $nosys))
  (func (export "sock_shutdown") (param i32 i32) (result i32) (global.get $nosys)))
