//! Steps over a value of any kind, checking it as if it were read.

use paceline_protocol::limits::JSON_DEPTH_MAX;

use super::{JsonError, Problem, Reader};

/// One bit for each open bracket says whether it is an object's.
const _: () = assert!(JSON_DEPTH_MAX <= 64);

impl Reader<'_> {
    /// Steps over one value. Cost: one pass, no recursion; only escaped strings allocate.
    pub(crate) fn skip(&mut self) -> Result<(), JsonError> {
        let bottom = self.depth;
        let mut objects = 0u64;
        loop {
            match self.peek() {
                Some(b'{') => {
                    self.open(b'{', "'{'")?;
                    objects = objects << 1 | 1;
                    if self.peek() == Some(b'}') {
                        objects >>= 1;
                        self.close();
                    } else {
                        self.skip_key()?;
                        continue;
                    }
                }
                Some(b'[') => {
                    self.open(b'[', "'['")?;
                    objects <<= 1;
                    if self.peek() == Some(b']') {
                        objects >>= 1;
                        self.close();
                    } else {
                        continue;
                    }
                }
                _ => self.skip_scalar()?,
            }
            if self.leave(bottom, &mut objects)? {
                return Ok(());
            }
        }
    }

    /// Behind a value: closes what ends here. `true` when the value that was to be skipped is
    /// over, `false` before the next one inside it.
    fn leave(&mut self, bottom: usize, objects: &mut u64) -> Result<bool, JsonError> {
        while self.depth > bottom {
            let in_object = *objects & 1 == 1;
            match self.peek() {
                Some(b',') => {
                    self.advance();
                    if in_object {
                        self.skip_key()?;
                    }
                    return Ok(false);
                }
                Some(b'}') if in_object => self.close(),
                Some(b']') if !in_object => self.close(),
                _ if in_object => return Err(self.expected("',' or '}'")),
                _ => return Err(self.expected("',' or ']'")),
            }
            *objects >>= 1;
        }
        Ok(true)
    }

    fn skip_key(&mut self) -> Result<(), JsonError> {
        if self.peek() != Some(b'"') {
            return Err(self.expected("a key in quotes"));
        }
        self.string()?;
        if self.peek() != Some(b':') {
            return Err(self.expected("':'"));
        }
        self.advance();
        Ok(())
    }

    fn skip_scalar(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b't' | b'f') => self.boolean().map(drop),
            Some(b'n') => self.null().map(drop),
            Some(b'-' | b'0'..=b'9') => self.number().map(drop),
            Some(b'N' | b'I') => Err(self.error(Problem::NotFinite)),
            _ => Err(self.expected("a JSON value")),
        }
    }
}
