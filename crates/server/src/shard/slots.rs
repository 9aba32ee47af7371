//! Things with small dense indices that are reused, and a generation that tells uses apart.

/// A table of `T`. Indices stay below the largest number of things held at once.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    slots: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
    count: usize,
}

impl<T> Slots<T> {
    pub(crate) fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), count: 0 }
    }

    /// Index and generation that the next [`Self::insert`] will use.
    pub(crate) fn next(&mut self) -> (u32, u32) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 things")
        });
        self.free.push(index);
        (index, self.slots[index as usize].0)
    }

    pub(crate) fn insert(&mut self, thing: T) -> (u32, u32) {
        let (index, generation) = self.next();
        self.free.pop();
        self.slots[index as usize].1 = Some(thing);
        self.count += 1;
        (index, generation)
    }

    pub(crate) fn remove(&mut self, index: u32, generation: u32) -> Option<T> {
        let (current, slot) = self.slots.get_mut(index as usize)?;
        if *current != generation {
            return None;
        }
        let thing = slot.take()?;
        *current = current.wrapping_add(1);
        self.free.push(index);
        self.count -= 1;
        Some(thing)
    }

    pub(crate) fn get(&self, index: u32, generation: u32) -> Option<&T> {
        let (current, slot) = self.slots.get(index as usize)?;
        slot.as_ref().filter(|_| *current == generation)
    }

    pub(crate) fn get_mut(&mut self, index: u32, generation: u32) -> Option<&mut T> {
        let (current, slot) = self.slots.get_mut(index as usize)?;
        slot.as_mut().filter(|_| *current == generation)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|(_, slot)| slot.as_ref())
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().filter_map(|(_, slot)| slot.as_mut())
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_index_does_not_answer_to_the_old_generation() {
        let mut slots = Slots::new();
        let (index, old) = slots.insert("a");
        assert_eq!(slots.remove(index, old), Some("a"));
        let (again, new) = slots.insert("b");
        assert_eq!(again, index);
        assert_eq!(slots.get(index, old), None);
        assert_eq!(slots.get(index, new), Some(&"b"));
        assert_eq!(slots.remove(index, old), None);
        assert_eq!(slots.len(), 1);
    }
}
