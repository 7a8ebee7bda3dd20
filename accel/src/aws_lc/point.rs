//! Whether bytes are a point of a curve.

use std::ptr::{NonNull, null_mut};

use aws_lc_sys as sys;

use super::{Curve, forget_errors};

/// A point that AWS-LC owns; freed when dropped.
struct Point(NonNull<sys::EC_POINT>);

impl Drop for Point {
    fn drop(&mut self) {
        // SAFETY: the point came from EC_POINT_new, is owned here alone, and is not used afterwards.
        unsafe { sys::EC_POINT_free(self.0.as_ptr()) }
    }
}

impl Curve {
    /// Whether `bytes` are a point of the curve, uncompressed (SEC 1, section 2.3.3) and not at
    /// infinity. AWS-LC checks that both coordinates are below the prime and solve the equation.
    pub(crate) fn has_point(self, bytes: &[u8]) -> bool {
        if bytes.len() != 1 + 2 * self.scalar_len() || bytes.first() != Some(&4) {
            return false;
        }
        // SAFETY: the group is a constant that lives for ever.
        let point = unsafe { sys::EC_POINT_new(self.group()) };
        let Some(point) = NonNull::new(point).map(Point) else {
            forget_errors();
            return false;
        };
        // SAFETY: the point belongs to this group, pointer and length are of one live slice, and a null
        // context is allowed.
        let returned = unsafe {
            sys::EC_POINT_oct2point(
                self.group(),
                point.0.as_ptr(),
                bytes.as_ptr(),
                bytes.len(),
                null_mut(),
            )
        };
        super::succeeded(returned).is_ok()
    }
}
