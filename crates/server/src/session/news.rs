//! What a peer's home shard has yet to hear, in order. State, not messages: it waits here until there
//! is room for it.

use std::collections::VecDeque;

use crate::message::NewsItem;
use relay_protocol::ChunkRange;

/// News that may wait for the home shard before nothing more is read; a read may bring as many.
pub(crate) const NEWS_ITEMS_MAX: usize = 1024;

/// The news of one peer.
#[derive(Debug, Default)]
pub(super) struct News {
    items: VecDeque<NewsItem>,
    /// The home must hear something, and be it only what the window allows.
    is_due: bool,
}

impl News {
    pub(super) fn push(&mut self, item: NewsItem) {
        self.items.push_back(item);
        self.is_due = true;
    }

    /// What goes with the news has changed.
    pub(super) fn set_due(&mut self) {
        self.is_due = true;
    }

    pub(super) fn is_due(&self) -> bool {
        self.is_due
    }

    pub(super) fn is_full(&self) -> bool {
        self.items.len() >= NEWS_ITEMS_MAX
    }

    /// Takes news, but no more claims than `claims_left`, which it lessens: the rest stays, and is due.
    /// Costs what it takes, whatever stays.
    pub(super) fn take(&mut self, claims_left: &mut u32) -> Vec<NewsItem> {
        let mut whole_items = 0;
        let mut cut = None;
        for item in &mut self.items {
            let make: fn(ChunkRange) -> NewsItem = match item {
                NewsItem::Lost(_) => NewsItem::Lost,
                _ => NewsItem::Have,
            };
            if let NewsItem::Have(range) | NewsItem::Lost(range) = item {
                if range.count > *claims_left {
                    cut = split_off(range, std::mem::take(claims_left)).map(make);
                    break;
                }
                *claims_left -= range.count;
            }
            whole_items += 1;
        }
        if whole_items == self.items.len() {
            self.is_due = false;
            return std::mem::take(&mut self.items).into();
        }
        self.is_due = true;
        self.items.drain(..whole_items).chain(cut).collect()
    }
}

/// The first `count` chunks, which the range then lacks.
fn split_off(range: &mut ChunkRange, count: u32) -> Option<ChunkRange> {
    let first = range.first;
    *range = ChunkRange { first: first + count, count: range.count - count };
    (count > 0).then_some(ChunkRange { first, count })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_taken_in_portions_and_nothing_overtakes_them() {
        let have = |first, count| NewsItem::Have(ChunkRange { first, count });
        let mut news = News::default();
        for item in [have(0, 3), NewsItem::Written(7), have(10, 8), NewsItem::Leaving] {
            news.push(item);
        }
        let mut left = 5;
        assert_eq!(news.take(&mut left), [have(0, 3), NewsItem::Written(7), have(10, 2)]);
        assert_eq!((left, news.is_due()), (0, true));
        assert_eq!(news.take(&mut left), [], "what comes behind claims waits with them");
        assert!(news.is_due());
        left = 6;
        assert_eq!(news.take(&mut left), [have(12, 6), NewsItem::Leaving]);
        assert_eq!((left, news.is_due()), (0, false));
        news.set_due();
        assert_eq!((news.take(&mut left), news.is_due()), (Vec::new(), false));
    }
}
